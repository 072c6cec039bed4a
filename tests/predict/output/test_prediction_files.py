import csv
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

from shardstream.predict.inference.prediction import RecordBatch
from shardstream.predict.output.prediction_files import (
    COLUMNS,
    add_columns,
    guarded,
    predictions_files,
    read_source_paths,
)


@pytest.fixture(name="written")
def _written(tmp_path):
    """Writes batches of (records, probabilities) and returns the rows of both files."""

    def written(class_names, *batches):
        with predictions_files(tmp_path / "p.parquet", tmp_path / "p.csv", class_names) as files:
            for records, probabilities in batches:
                images = np.zeros((len(records), 1, 1, 3), np.uint8)
                files.write(RecordBatch(records=records, images=images), np.array(probabilities, np.float32))
        with (tmp_path / "p.csv").open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        return rows, pq.read_table(tmp_path / "p.parquet").to_pylist()

    return written


@pytest.fixture(name="one")
def _one(make_record):
    def one(path, label=0):
        shard = "photos-validation.tfrecord-00000-of-00001"
        return make_record(path, label=label, shard=shard, position=17, source_sha256="ab" * 32)

    return one


def test_a_row_has_everything_that_is_known(written, one):
    rows, table = written(["food", "interior"], ([one("food/a.jpg")], [[0.25, 0.75]]))
    assert rows == [
        {
            "record": "photos-validation.tfrecord-00000-of-00001__17",
            "shard": "photos-validation.tfrecord-00000-of-00001",
            "position": "17",
            "source_path": "food/a.jpg",
            "source_sha256": "ab" * 32,
            "actual": "food",
            "predicted": "interior",
            "probability": "0.750000",
            "actual_probability": "0.250000",
            "right": "no",
            "loss": "1.386294",
            "probability_food": "0.250000",
            "probability_interior": "0.750000",
        }
    ]
    assert tuple(rows[0])[: len(COLUMNS)] == COLUMNS
    assert table == [
        {
            **{name: rows[0][name] for name in COLUMNS[:7]},
            "position": 17,
            "probability": 0.75,
            "actual_probability": 0.25,
            "right": False,
            "loss": pytest.approx(1.386294),
            "probabilities": [0.25, 0.75],
        }
    ]


def test_batches_follow_one_another(written, one):
    first = ([one("a"), one("b", 1)], [[0.9, 0.1], [0.8, 0.2]])
    rows, table = written(["x", "y"], first, ([one("c")], [[0.5, 0.5]]))
    assert [row["source_path"] for row in rows] == [row["source_path"] for row in table] == ["a", "b", "c"]
    assert [row["right"] for row in table] == [True, False, True]


def test_a_table_of_very_many_classes_has_no_column_for_each(written, one):
    probabilities = np.eye(150)[:1]
    rows, table = written([f"c{i}" for i in range(150)], ([one("a")], probabilities))
    assert tuple(rows[0]) == COLUMNS
    assert table[0]["probabilities"] == probabilities[0].tolist()


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝"])
def test_no_cell_begins_as_a_formula(written, one, start):
    name = f"{start}cmd|'/c calc'!A1"
    (row,), (kept,) = written([name, "b"], ([one(name)], [[0.5, 0.5]]))
    for key in ("source_path", "actual", "predicted"):
        assert row[key] == f"'{name}"
        assert kept[key] == name
    assert f"probability_{name}" in row


@pytest.mark.parametrize(
    "name", ['a"b,c;d', "two\nlines", "ESC \x1b[31m", "<script>alert(1)</script>", "\u202eabc"]
)
def test_other_names_come_back_as_they_were(written, one, name):
    (row,), (kept,) = written(["food", "interior"], ([one(name)], [[0.5, 0.5]]))
    assert row["source_path"] == kept["source_path"] == guarded(name) == name


def test_a_folder_whose_name_is_not_utf8(one, tmp_path):
    folder = tmp_path / os.fsdecode(b"report_\xbd")
    folder.mkdir()
    parquet, table = folder / "p.parquet", folder / "p.csv"
    with predictions_files(parquet, table, ["a", "b"]) as files:
        batch = RecordBatch(records=[one("x.jpg"), one("y.jpg")], images=np.zeros((2, 1, 1, 3), np.uint8))
        files.write(batch, np.full((2, 2), 0.5, np.float32))
    add_columns(parquet, table, {"label_issue": {1: 1}})
    assert read_source_paths(parquet, [0, 1]) == {0: "x.jpg", 1: "y.jpg"}
    assert sorted(path.name for path in folder.iterdir()) == ["p.csv", "p.parquet"]
