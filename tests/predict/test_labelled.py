"""Class folders as a test set: the figures of a report without a dataset."""

import json
import shutil

import pytest

from shardstream.predict.__main__ import main


@pytest.fixture
def labelled(trial, tmp_path):
    """The photos of the trial in folders of their classes: nine in ten look like their own."""
    for photo in trial.photos:
        path = tmp_path / "new" / trial.info.class_names[photo.label] / photo.path.split("/")[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo.encoded())
    return tmp_path / "new"


def predict(trial, images, out, *options):
    return main([str(trial.run), str(images), "--labelled", "--all", "--json", "--out", str(out), *options])


def expected_accuracy(trial):
    return sum(photo.label == photo.looks_like for photo in trial.photos) / len(trial.photos)


def test_class_folders_are_a_test_set(trial, labelled, tmp_path, capsys):
    (labelled / trial.info.class_names[0] / "notes.txt").write_text("no image")
    assert predict(trial, labelled, tmp_path / "report") == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["split"] == "test"
    assert metrics["accuracy"] == pytest.approx(expected_accuracy(trial))
    page = (tmp_path / "report/index.html").read_text(encoding="utf-8")
    assert f"<dt>Dataset</dt><dd><bdi>{labelled}</bdi></dd>" in page


def test_the_split_of_a_folder_and_an_archive_are_understood(trial, labelled, tmp_path, capsys):
    (tmp_path / "split/train").mkdir(parents=True)
    for name in trial.info.class_names:
        shutil.copytree(labelled / name, tmp_path / "split/val" / name)
        (tmp_path / "split/train" / name).mkdir()
    assert predict(trial, tmp_path / "split", tmp_path / "report", "--split", "validation") == 0
    assert json.loads(capsys.readouterr().out)["split"] == "validation"
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", labelled)
    assert predict(trial, archive, tmp_path / "second") == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(expected_accuracy(trial))


def test_other_classes_than_those_of_the_model_are_refused(trial, labelled, tmp_path, capsys):
    (labelled / trial.info.class_names[0]).rename(labelled / "garden")
    assert predict(trial, labelled, tmp_path / "report") == 2
    assert "garden is not named" in capsys.readouterr().err
