import json
import os
import re

import pytest

from shardstream.ingest.common.errors import ConfigError
from shardstream.train.runs.run_folder import RunFolder, write_beside, write_json

CONFIG = {"data_dir": "data", "seed": 1, "batch_size": 8}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            ["config.json", "best.keras", "model.json"],
            "holds a finished run already; choose another --run, or remove it",
        ),
        (["model.json"], "holds a finished run already; choose another --run, or remove it"),
        (["photo.jpg"], "holds files that are no run; choose another --run"),
    ],
)
def test_nothing_is_overwritten(tmp_path, files, sentence):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{tmp_path}: {sentence}')}$"):
        RunFolder(tmp_path).check()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(ConfigError, match="x: a file; choose another --run"):
        RunFolder(tmp_path / "x").check()


def test_a_run_that_ended_without_a_model_may_be_made_again(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "a")
    folder.check()
    folder.create(CONFIG)
    folder.logs.mkdir()
    folder.history.write_text("old")
    folder.check()
    folder.create(CONFIG | {"이름": "한"})
    assert sorted(path.name for path in folder.path.iterdir()) == ["checkpoints", "config.json"]
    assert json.loads(folder.config.read_text(encoding="utf-8")) == CONFIG | {"이름": "한"}


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("old")

    def fail(beside):
        assert beside.suffix == ".keras"
        beside.write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_beside(path, fail)
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]
    assert path.read_text() == "old"
    write_beside(path, lambda beside: beside.write_text("new"))
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("options", "model", "advice"),
    [
        ({"model": "small"}, "small", ", with --weights {run}/best.keras to train its model further"),
        ({"model": "lite0", "fine_tune": None}, "lite0", ", with --fine-tune last to train its backbone too"),
        ({"model": "lite0", "fine_tune": "full"}, "lite0", ""),
        ({"model": "auto"}, "lite0", ", with --model lite0 --fine-tune last to train its backbone too"),
        (
            {"model": "auto"},
            "small",
            ", with --model small --weights {run}/best.keras to train its model further",
        ),
        ({}, "small", ""),
    ],
)
def test_a_finished_run_says_how_to_train_further(tmp_path, options, model, advice):
    folder = RunFolder(tmp_path)
    folder.config.write_text(json.dumps(options))
    folder.best_model.touch()
    folder.model_info.write_text(json.dumps({"model": model}))
    sentence = f"{tmp_path}: holds a finished run already; choose another --run{advice}, or remove it"
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence.format(run=tmp_path))}$"):
        folder.check()


@pytest.mark.parametrize("left", [[], [".lock"], [".lock", "checkpoints/", ".config.incomplete.json"]])
def test_what_a_kill_left_before_there_was_a_config_is_no_obstacle(tmp_path, left):
    for name in left:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    RunFolder(tmp_path).check()


def test_a_folder_of_checkpoints_of_others_is_one(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "mine.pt").touch()
    with pytest.raises(ConfigError, match="holds files that are no run"):
        RunFolder(tmp_path).check()


def finished_but_for_its_checkpoints(path) -> RunFolder:
    folder = RunFolder(path)
    folder.create({"model": "small"})
    for file in (folder.best_model, folder.last_model, folder.model_info, folder.history):
        file.touch()
    folder.checkpoints.rename(path / ".checkpoints.done")
    (path / ".checkpoints.done" / "000001-000000000.checkpoint").touch()
    return folder


def test_checkpoints_that_a_kill_kept_from_being_removed_go_at_the_next_look(tmp_path):
    folder = finished_but_for_its_checkpoints(tmp_path)
    with pytest.raises(ConfigError, match="holds a finished run already"):
        folder.check()
    assert not (tmp_path / ".checkpoints.done").exists()


def test_a_new_run_where_they_are_left_comes_to_its_end(tmp_path):
    folder = finished_but_for_its_checkpoints(tmp_path)
    with folder.locked():
        folder.create({"model": "small"})
        for file in (folder.best_model, folder.last_model, folder.model_info, folder.history):
            file.touch()
        folder.checkpoints.joinpath("000001-000000000.checkpoint").touch()
        folder.finish()
    assert not folder.is_unfinished


def test_a_run_that_is_begun_anew_has_no_bad_records_of_before(tmp_path):
    folder = RunFolder(tmp_path)
    folder.create({})
    folder.bad_records.touch()
    folder.create({})
    assert not folder.bad_records.exists()


def test_a_path_that_is_not_utf8_can_be_written_down(tmp_path):
    data = os.fsdecode(b"data_\xbd\xc4")
    write_json(tmp_path / "config.json", {"data": data, "class": "음식"})
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"data": data, "class": "음식"}
    assert "음식" in text


@pytest.mark.parametrize(
    ("config", "other", "sentence"),
    [
        (
            {"model_type": "bert"},
            None,
            "{run}/config.json: of another program, not of a run; choose another --run",
        ),
        (
            CONFIG,
            "checkpoints/model.pt",
            "{run}/checkpoints/model.pt: no file of a run; move it out of {run}, or",
        ),
        (CONFIG, "checkpoints/sub/x", "{run}/checkpoints/sub: no file of a run"),
        (CONFIG, "logs/mine/x", "{run}/logs/mine: no file of a run"),
        (CONFIG, "logs/train/notes.txt", "{run}/logs/train/notes.txt: no file of a run"),
        (CONFIG, "best.keras/x", "{run}/best.keras: no file of a run"),
    ],
)
def test_a_folder_with_files_that_a_run_would_remove_is_refused(tmp_path, config, other, sentence):
    folder = RunFolder(tmp_path)
    folder.create(config)
    (folder.checkpoints / "000001-000000000.checkpoint").touch()
    if other:
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / other).touch()
        folder.model_info.unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence.format(run=tmp_path))}"):
        folder.check()


def test_the_logs_and_checkpoints_of_a_run_are_its_own(tmp_path):
    folder = RunFolder(tmp_path)
    folder.create(CONFIG)
    names = ("checkpoints/000001-000000000.checkpoint", "checkpoints/000002-000000000.checkpoint.0f.part")
    for name in (*names, "logs/train/events.out.tfevents.1.vm.2.0.v2"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    folder.check()
