"""The whole way: the files of a report agree with one another and with what the model had to say."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from matplotlib.image import imread

from shardstream.predict.__main__ import main
from shardstream.predict.metrics.intervals import wilson_interval

FILES = {
    "calibration.png",
    "confusion_matrix.png",
    "findings.csv",
    "grid.png",
    "index.html",
    "metrics.json",
    "predictions.csv",
    "predictions.parquet",
}


@pytest.fixture(scope="module")
def everything(trial, tmp_path_factory):
    """The report on the whole split."""
    out = tmp_path_factory.mktemp("out") / "report"
    assert main([str(trial.run), str(trial.data), "--all", "--out", str(out)]) == 0
    return out


def rows_of(out):
    with (out / "predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def metrics_of(out):
    return json.loads((out / "metrics.json").read_text(encoding="utf-8"))


def test_predictions_are_those_of_a_model_that_names_the_strongest_color(trial, everything):
    rows = rows_of(everything)
    names = trial.info.class_names
    assert [row["source_path"] for row in rows] == [photo.path for photo in trial.photos]
    assert [row["actual"] for row in rows] == [names[photo.label] for photo in trial.photos]
    assert [row["predicted"] for row in rows] == [names[photo.looks_like] for photo in trial.photos]
    assert [row["right"] for row in rows] == [
        "yes" if photo.label == photo.looks_like else "no" for photo in trial.photos
    ]
    assert rows[40]["record"] == "photos-validation.tfrecord-00001-of-00003__0"


def test_metrics_agree_with_the_predictions(trial, everything):
    rows, metrics = rows_of(everything), metrics_of(everything)
    names = list(trial.info.class_names)
    actual = np.array([names.index(row["actual"]) for row in rows])
    predicted = np.array([names.index(row["predicted"]) for row in rows])
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (actual, predicted), 1)
    assert metrics["confusion_matrix"] == confusion.tolist()
    assert metrics["num_examples"] == len(rows) == 81
    assert metrics["num_right"] == sum(row["right"] == "yes" for row in rows) == 72
    assert metrics["accuracy"] == pytest.approx(72 / 81)
    assert metrics["accuracy_interval_95"] == pytest.approx(wilson_interval(72, 81))
    assert metrics["mean_loss"] == pytest.approx(np.mean([float(row["loss"]) for row in rows]), abs=1e-6)
    for label, figures in enumerate(metrics["classes"]):
        assert figures["class_name"] == names[label]
        assert figures["display_name"] == trial.info.display_names[label]
        assert figures["support"] == (actual == label).sum()
        assert figures["recall"] == pytest.approx(confusion[label, label] / confusion[label].sum())
        assert figures["precision"] == pytest.approx(confusion[label, label] / confusion[:, label].sum())
    assert [(pair["actual"], pair["predicted"], pair["count"]) for pair in metrics["confused_pairs"]] == [
        ("food", "interior", 3),
        ("interior", "exterior", 3),
        ("exterior", "food", 3),
    ]


def test_rows_agree_with_themselves(trial, everything):
    for row in rows_of(everything):
        probabilities = {name: float(row[f"probability_{name}"]) for name in trial.info.class_names}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert float(row["probability"]) == max(probabilities.values()) == probabilities[row["predicted"]]
        assert float(row["loss"]) == pytest.approx(-np.log(probabilities[row["actual"]]), abs=1e-4)
        assert row["record"] == f"{row['shard']}__{row['position']}"


def test_metrics_say_where_they_come_from(trial, everything):
    metrics = metrics_of(everything)
    assert metrics["dataset_fingerprint"] == metrics["model_dataset_fingerprint"] == trial.info.fingerprint
    assert metrics["selection"] == "all 81 images of the validation split"
    assert metrics["command"].startswith("shardstream-predict ")
    assert {"keras", "tensorflow", "python"} <= metrics["versions"].keys()


def test_nothing_else_is_left_in_the_folder(everything):
    assert {path.name for path in everything.iterdir()} == FILES


def test_the_grid_is_a_picture(everything):
    height, width, _ = imread(everything / "grid.png").shape
    assert width > height > 500


def test_a_batch_is_32_records_in_file_order(trial, tmp_path):
    assert main([str(trial.run), str(trial.data), "--batch", "2", "--out", str(tmp_path / "r")]) == 0
    assert [row["source_path"] for row in rows_of(tmp_path / "r")] == [
        photo.path for photo in trial.photos[32:64]
    ]


def test_a_sample_is_the_same_for_the_same_seed_and_another_for_another(trial, tmp_path):
    def sample(seed, name):
        arguments = ["--sample", "10", "--seed", seed, "--gallery", "0", "--out", str(tmp_path / name)]
        assert main([str(trial.run), str(trial.data), *arguments]) == 0
        return [row["record"] for row in rows_of(tmp_path / name)]

    assert sample("1", "a") == sample("1", "b") != sample("2", "c")
    assert len(sample("1", "a")) == 10


def test_json_is_one_object_on_stdout(trial, tmp_path, capsys):
    assert main([str(trial.run), str(trial.data), "--json", "--split", "train", "--out", str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"report": str(tmp_path / "index.html"), **metrics_of(tmp_path)}
    assert printed["split"] == "train"
    assert printed["num_examples"] == 1
    assert printed["classes"][1]["recall"] is None  # Not NaN, which is no JSON.


def test_the_terminal_shows_names_as_the_user_wrote_them(trial, tmp_path, capsys):
    assert main([str(trial.run), str(trial.data), "--batch", "1", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["actual", "predicted", "probability", "image"]
    wrong = [line.split() for line in lines if line.startswith("INCORRECT")]
    assert sorted((row[1], row[2]) for row in wrong) == [
        ("실내", "실외"),
        ("실외", "음식"),
        ("음식", "실내"),
        ("음식", "실내"),
    ]
    assert sum(line.startswith("correct") for line in lines) == 28
    assert lines[-2] == (
        "accuracy 87.5% (95 % interval 71.9% to 95.0%): 28 of 32 correct; "
        "batch 1 of 3: images 1 to 32 of the 81 of the validation split, in file order"
    )
    assert lines[-1] == f"report: {tmp_path / 'index.html'}"


def test_only_32_rows_are_printed(trial, tmp_path, capsys):
    assert main([str(trial.run), str(trial.data), "--all", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("INCORRECT", "correct")) for line in lines) == 32
    assert "32 of 81 images: incorrect ones first, highest loss first" in lines


def test_a_second_run_replaces_the_report_says_so_and_leaves_the_users_files(trial, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    replaced = f"replaced the earlier report in {tmp_path}; --out PATH keeps both"
    for batch, is_said in (("1", False), ("3", True)):
        assert main([str(trial.run), str(trial.data), "--batch", batch, "--out", str(tmp_path)]) == 0
        assert (replaced in capsys.readouterr().out.splitlines()) == is_said
    assert metrics_of(tmp_path)["num_examples"] == 17
    assert "batch 3 of 3" in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"notes.txt"}


def test_photos_have_a_report_of_their_own(trial, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(trial.run, run)
    assert main([str(run), str(trial.data), "--batch", "1"]) == 0
    before = {path.name: path.read_bytes() for path in (run / "report").iterdir()}
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose/a.png").write_bytes(trial.photos[0].encoded())
    assert main([str(run), str(tmp_path / "loose")]) == 0
    assert {path.name: path.read_bytes() for path in (run / "report").iterdir()} == before
    expected = {"index.html", "metrics.json", "predictions.csv"}
    assert {path.name for path in (run / "photos-report").iterdir()} == expected
    assert "replaced" not in capsys.readouterr().out
    assert main([str(run), str(tmp_path / "loose/a.png")]) == 0
    assert f"replaced the earlier report in {run / 'photos-report'}; --out" in capsys.readouterr().out


def test_nothing_of_an_earlier_report_stays_and_nothing_of_the_user_goes(trial, tmp_path):
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose/a.png").write_bytes(trial.photos[0].encoded())
    out = tmp_path / "out"
    assert main([str(trial.run), str(trial.data), "--batch", "1", "--out", str(out)]) == 0
    (out / "notes.txt").write_text("mine")
    (out / "figures").mkdir()
    assert main([str(trial.run), str(tmp_path / "loose"), "--out", str(out)]) == 0
    expected = {"index.html", "metrics.json", "predictions.csv", "notes.txt", "figures"}
    assert {path.name for path in out.iterdir()} == expected


@pytest.mark.parametrize("name", ["index.html", "predictions.csv", "grid.png"])
def test_a_file_of_the_user_by_the_name_of_one_of_ours_is_not_replaced(trial, tmp_path, capsys, name):
    (tmp_path / name).write_text("mine")
    assert main([str(trial.run), str(trial.data), "--batch", "1", "--out", str(tmp_path)]) == 2
    assert f"has files that are no report ({name})" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}


def test_a_publication_that_is_killed_leaves_no_page(tmp_path, monkeypatch):
    from pathlib import Path

    from shardstream.predict.output.staging import publish

    out, staging = tmp_path / "out", tmp_path / "staging"
    names = ("metrics.json", "predictions.csv", "index.html")
    for folder, text in ((out, "old"), (staging, "new")):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(text)
    replace, calls = Path.replace, []

    def killed(self, target):
        calls.append(self)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        publish(staging, out, names)
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        "metrics.json": "new",
        "predictions.csv": "old",
    }


def test_findings_are_complete_in_their_file_and_beside_the_predictions(trial, monkeypatch, tmp_path):
    import pyarrow.parquet as pq

    from shardstream.predict.findings import label_check
    from shardstream.predict.findings.label_issues import LabelIssues

    # More than the page shows.
    listed = np.arange(0, 60, 2)[::-1]
    issues = LabelIssues(rows=listed, probabilities=np.linspace(0.99, 0.6, 30), errors=np.arange(1, 60, 2))
    monkeypatch.setattr(label_check, "find_label_issues", lambda outcomes, num_classes: issues)
    assert main([str(trial.run), str(trial.data), "--all", "--out", str(tmp_path)]) == 0
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "The first 24 of 30; findings.csv has them all." in page
    with (tmp_path / "findings.csv").open(encoding="utf-8-sig", newline="") as file:
        found = [row for row in csv.DictReader(file) if row["label_issue"]]
    assert [row["source_path"] for row in found] == [trial.photos[row].path for row in listed]
    assert [int(row["label_issue"]) for row in found] == list(range(1, 31))
    metrics = metrics_of(tmp_path)
    assert metrics["num_label_issues"] == 30
    assert metrics["label_issues_expected_precision"] == pytest.approx(issues.probabilities.mean())
    ranks = {row["source_path"]: row["label_issue"] for row in rows_of(tmp_path) if row["label_issue"]}
    assert ranks == {row["source_path"]: row["label_issue"] for row in found}
    table = pq.read_table(tmp_path / "predictions.parquet").to_pydict()
    assert [rank for rank in table["label_issue"] if rank] == [30 - i for i in range(30)]
    assert table["source_path"] == [photo.path for photo in trial.photos]
    assert len(table["probabilities"]) == 81


def test_a_model_file_is_predicted_with_and_its_report_lies_beside_it(trial, tmp_path, capsys):
    import keras

    model = keras.saving.load_model(trial.run / "best.keras")
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save(tmp_path / "own.keras")
    command = [str(tmp_path / "own.keras"), str(trial.data), "--all"]
    assert main(command) == 2
    assert "own.keras: no model.json beside it, which names the classes" in capsys.readouterr().err
    shutil.copy(trial.run / "model.json", tmp_path)
    assert main(command) == 0
    rows = rows_of(tmp_path / "own-report")
    assert [row["right"] == "yes" for row in rows] == [p.label == p.looks_like for p in trial.photos]
    assert "own.keras" in (tmp_path / "own-report/index.html").read_text(encoding="utf-8")


def test_a_dataset_of_one_split_needs_no_name_and_several_do(trial, write_dataset, tmp_path, capsys):
    one = write_dataset(tmp_path / "one", {"test": [trial.photos]})
    assert main([str(trial.run), str(one.data_dir), "--all", "--out", str(tmp_path / "a"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["split"] == "test"
    page = (tmp_path / "a/index.html").read_text(encoding="utf-8")
    assert "all 81 images of the test split" in page
    assert "<title>run on photos, test split: prediction report</title>" in page
    two = write_dataset(tmp_path / "two", {"test": [trial.photos[:9]], "train": [trial.photos[9:]]})
    assert main([str(trial.run), str(two.data_dir), "--all", "--out", str(tmp_path / "b")]) == 2
    assert "no split 'validation'; choose one with --split: test, train" in capsys.readouterr().err


def test_a_run_that_fails_leaves_the_earlier_report_whole(trial, copy_dataset, tmp_path, capsys):
    info = copy_dataset(trial.info)
    out = tmp_path / "report"
    assert main([str(trial.run), str(info.data_dir), "--all", "--out", str(out)]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    shard = info.data_dir / info.splits["validation"].shards[2].filename
    shard.write_bytes(shard.read_bytes()[:-5] + b"wrong")
    assert main([str(trial.run), str(info.data_dir), "--all", "--out", str(out)]) == 2
    assert f"{shard}: record 10 " in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_what_a_killed_run_left_is_cleared_away_after_a_day(trial, tmp_path):
    import os
    import time

    for name, age in (("old", 25), ("young", 1)):
        folder = tmp_path / f".incomplete-{name}"
        folder.mkdir()
        (folder / "index.html").write_text("half")
        os.utime(folder, (time.time() - age * 3600,) * 2)
    assert main([str(trial.run), str(trial.data), "--batch", "1", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == FILES | {".incomplete-young"}


def test_the_report_goes_into_the_run_folder(trial, tmp_path):
    run = tmp_path / "report"  # A run of this name is no command.
    shutil.copytree(trial.run, run)
    assert main([str(run), str(trial.data), "--batch", "3"]) == 0
    assert {path.name for path in (run / "report").iterdir()} == FILES


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{run}", "{empty}"], r"\S+/empty: no metadata.json in it"),
        (["{run}", "{data}/none"], r"\S+/none: no such folder"),
        (["{empty}", "{data}"], r"\S+/empty: no config.json and no model.json in it"),
        (["{data}/none", "{data}"], r"\S+/none: no such run folder"),
        (["{run}", "{data}", "--split", "test"], r"\S+: no split 'test'; there is train, validation"),
        (["{run}", "{data}", "--batch", "4"], r"--batch 4: .* give 1 to 3"),
        (["{run}", "{data}", "--sample", "0"], r"--sample has to be at least 1, got 0"),
        (["{run}", "{data}", "--all", "--batch", "1"], r"--batch and --all exclude one another"),
        (["{other}", "{data}"], r"\S+/other: the model knows the classes 'a', 'b', but \S+ has 'food',"),
        (["{run}", "{data}", "--all", "--out", "{file}"], r"\S+/file: File exists"),
    ],
)
def test_errors_are_one_sentence_and_write_nothing(trial, write_run, tmp_path, capfd, arguments, sentence):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    if "{other}" in arguments:
        write_run(tmp_path / "other", trial.info, class_names=["a", "b"])
    places = {"run": trial.run, "data": trial.data} | {
        name: tmp_path / name for name in ("empty", "other", "file")
    }
    before = sorted(tmp_path.rglob("*"))
    assert main([argument.format(**places) for argument in arguments]) == 2
    out, err = capfd.readouterr()
    assert re.fullmatch(rf"shardstream-predict: {sentence}[^\n]*\n", err)
    assert out == ""
    assert sorted(tmp_path.rglob("*")) == before
    assert not (trial.run / "report").exists()
