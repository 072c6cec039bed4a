import json
import os
import re

import pytest

from shardstream.ingest.common.errors import ConfigError
from shardstream.train.runs.run_folder import RunFolder, write_beside, write_json


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            ["config.json", "best.keras", "model.json"],
            "holds a finished run already; choose another --run or remove it",
        ),
        (["model.json"], "holds a finished run already; choose another --run or remove it"),
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
    folder.create({"epochs": 1})
    folder.logs.mkdir()
    folder.history.write_text("old")
    folder.check()
    folder.create({"epochs": 2, "이름": "한"})
    assert sorted(path.name for path in folder.path.iterdir()) == ["checkpoints", "config.json"]
    assert json.loads(folder.config.read_text(encoding="utf-8")) == {"epochs": 2, "이름": "한"}


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


def test_a_path_that_is_not_utf8_can_be_written_down(tmp_path):
    data = os.fsdecode(b"data_\xbd\xc4")
    write_json(tmp_path / "config.json", {"data": data, "class": "음식"})
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"data": data, "class": "음식"}
    assert "음식" in text
