"""What a run that goes on takes from its folder, edited: one sentence each, and nothing is trained."""

import json
import re

import numpy as np
import pytest

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.train.data.sampling import ORDER_VERSION
from shardstream.train.engine.progress import Progress
from shardstream.train.runs.checkpoint import Checkpoint, Checkpoints
from shardstream.train.runs.resume import find_resumable
from shardstream.train.runs.resume_identity import identity_path, read_identity
from shardstream.train.runs.run_folder import RunFolder
from shardstream.train.runs.saved_model import ModelInfo
from shardstream.train.runs.status import read_status
from shardstream.train.runs.training_dataset import find_training_dataset

OPTIONS = {
    "model": "small",
    "epochs": 3,
    "steps_per_epoch": 4,
    "precision": "float32",
    "jit_compile": "off",
    "versions": {},
    "order_version": ORDER_VERSION,
}
POSITION = Progress(1, 2)
ROW = {"epoch": 1, "val_loss": 0.5, "val_accuracy": 0.5}


def make_run(path, options, *, position=POSITION, history=(ROW,)) -> RunFolder:
    folder = RunFolder(path)
    folder.create(OPTIONS | options)
    weights = {"0": np.ones(2, np.float32)} if history else {}
    Checkpoints(folder.checkpoints).save(
        Checkpoint(position=position, secs=1.0, history=history, variables=weights, best_weights=weights)
    )
    return folder


def find(folder):
    return find_resumable(folder, Checkpoints(folder.checkpoints))


def test_a_run_that_nobody_edited_goes_on(tmp_path):
    found = find(make_run(tmp_path, {}))
    assert found is not None and found.checkpoint.position == Progress(1, 2)


def test_the_last_step_of_an_epoch_is_a_state_to_go_on_from(tmp_path):
    found = find(make_run(tmp_path, {"steps_per_epoch": 2}))
    assert found is not None and found.checkpoint.position == Progress(1, 2)


@pytest.mark.parametrize(
    "options",
    [
        {"candidates": 7},
        {"candidates": ["x"]},
        {"candidates": [[]]},
        {"best_by": "x"},
        {"best_by": []},
        {"precision": "float64"},
        {"jit_compile": None},
        {"versions": [1]},
        {"epochs": "x"},
        {"epochs": 0},
        {"steps_per_epoch": 1},
        {"steps_per_epoch": None},
    ],
)
def test_options_that_no_run_has(tmp_path, options):
    with pytest.raises(DatasetError, match=r"^[^\n]*: cannot be read: [^\n]*--no-resume starts over[^\n]*$"):
        find(make_run(tmp_path, options))


@pytest.mark.parametrize(
    ("position", "history"),
    [(Progress(1), []), (Progress(2), [ROW]), (Progress(1), [{"epoch": 1}]), (Progress(4), [ROW] * 4)],
)
def test_a_state_that_no_run_has(tmp_path, position, history):
    with pytest.raises(DatasetError, match="--no-resume starts over"):
        find(make_run(tmp_path, {}, position=position, history=history))


def test_a_state_before_the_first_step_has_no_time_left(tmp_path):
    assert read_status(make_run(tmp_path, {}, position=Progress(), history=[]).path).secs_left is None


@pytest.mark.parametrize("epoch", ["inf", "NaN", "-3", "1e400"])
def test_the_number_of_an_epoch_that_is_none(tmp_path, epoch):
    folder = make_run(tmp_path, {})
    folder.history.write_text(f"epoch,val_loss,val_accuracy\n{epoch},1,1\n")
    with pytest.raises(
        DatasetError, match=re.escape("history.csv: cannot be read: the number of an epoch is none")
    ):
        read_status(tmp_path)


def test_an_option_that_is_missing_is_named(tmp_path):
    RunFolder(tmp_path).create({"epochs": 3})
    with pytest.raises(DatasetError, match="cannot be read: no 'steps_per_epoch' in it; train again"):
        read_status(tmp_path)


@pytest.mark.parametrize("config", ["[" * 200_000, "7", '{"data_dir": []}', '{"data_dir": "a\\u0000b"}'])
def test_a_config_that_names_no_dataset(tmp_path, config):
    info = ModelInfo(
        class_names=("a", "b"),
        display_names=("a", "b"),
        image_size=8,
        resize="pad",
        stored_size=None,
        encoding="png",
        quality=95,
        model="small",
        dataset_fingerprint="f",
        num_parameters=7,
        precision="float32",
        versions={},
    )
    RunFolder(tmp_path).config.write_text(config)
    assert find_training_dataset(tmp_path, info) is None


@pytest.mark.parametrize("content", [{"basics": {"name": "A. Person"}}, [], 7])
def test_the_resume_of_a_person_is_not_overwritten(tmp_path, content):
    path = identity_path(RunFolder(tmp_path))
    path.write_text(json.dumps(content))
    with pytest.raises(
        ConfigError, match="holds files that ResumeCallback did not write; choose another folder"
    ):
        read_identity(RunFolder(tmp_path))


def test_an_identity_that_is_nested_without_end(tmp_path):
    identity_path(RunFolder(tmp_path)).write_text("[" * 200_000)
    with pytest.raises(ConfigError, match=r"resume\.json: cannot be read"):
        read_identity(RunFolder(tmp_path))
