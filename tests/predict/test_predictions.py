import csv
import io

import numpy as np
import pytest

from predict.prediction import Prediction, Record
from predict.predictions import COLUMNS, PredictionsFile, guarded


def prediction(path, probabilities, label=0):
    record = Record(
        shard="photos-validation.tfrecord-00000-of-00001",
        position=17,
        label=label,
        source_path=path,
        source_sha256="ab" * 32,
        source_height=480,
        source_width=640,
        encoded=b"",
        media_type=None,
    )
    return Prediction(record, np.array(probabilities, np.float32))


def written(class_names, *predictions):
    file = io.StringIO(newline="")
    rows = PredictionsFile(file, class_names)
    for one in predictions:
        rows.write(one)
    return list(csv.DictReader(io.StringIO(file.getvalue(), newline="")))


def test_a_row_has_everything_that_is_known():
    (row,) = written(["food", "interior"], prediction("food/a.jpg", [0.25, 0.75]))
    assert row == {
        "record": "photos-validation.tfrecord-00000-of-00001__17",
        "shard": "photos-validation.tfrecord-00000-of-00001",
        "position": "17",
        "source_path": "food/a.jpg",
        "source_sha256": "ab" * 32,
        "actual": "food",
        "predicted": "interior",
        "probability": "0.750000",
        "right": "no",
        "loss": "1.386294",
        "probability_food": "0.250000",
        "probability_interior": "0.750000",
    }
    assert tuple(row)[: len(COLUMNS)] == COLUMNS


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝"])
def test_no_cell_begins_as_a_formula(start):
    name = f"{start}cmd|'/c calc'!A1"
    (row,) = written([name, "b"], prediction(name, [0.5, 0.5]))
    for key in ("source_path", "actual", "predicted"):
        assert row[key] == f"'{name}"
    assert f"probability_{name}" in row


@pytest.mark.parametrize(
    "name", ['a"b,c;d', "two\nlines", "ESC \x1b[31m", "<script>alert(1)</script>", "\u202eabc"]
)
def test_other_names_come_back_as_they_were(name):
    (row,) = written(["food", "interior"], prediction(name, [0.5, 0.5]))
    assert row["source_path"] == name
    assert guarded(name) == name
