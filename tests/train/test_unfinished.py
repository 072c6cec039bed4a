import contextlib
import dataclasses
import json
import logging
import os
import re
import resource
import shutil

import keras
import numpy as np
import pytest

import shardstream.train.resolve
from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.train.__main__ import main
from shardstream.train.config import TrainConfig
from shardstream.train.engine.loop import DivergedError
from shardstream.train.run import train_and_evaluate
from shardstream.train.runs import callbacks
from shardstream.train.runs import checkpoint_manager as saving
from shardstream.train.runs.checkpoint import Checkpoints
from shardstream.train.runs.process_lock import locked_by_this_process
from shardstream.train.runs.resume import differences
from shardstream.train.runs.run_folder import RunFolder


class CrashError(Exception):
    """What ends a run in the tests."""


class Crash(keras.callbacks.Callback):
    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise CrashError


def build_tiny(name, *, image_size, num_classes, seed, synchronized=False):
    return keras.Sequential(
        [
            keras.Input((image_size, image_size, 3)),
            keras.layers.AveragePooling2D(8),
            keras.layers.Flatten(),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            keras.layers.Dropout(0.1, seed=seed),
            keras.layers.Dense(num_classes, activation="softmax", dtype="float32"),
        ]
    )


@pytest.fixture(scope="module", autouse=True)
def _tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shardstream.train.resolve, "build_model", build_tiny)
        for module in (callbacks, saving):
            patch.setattr(module, "_MIN_SHARE", 0)  # Epochs are short here: each is saved.
        yield


@pytest.fixture(scope="module")
def stopped(striped, tmp_path_factory):
    """A run of 4 epochs that came to an end after 2."""
    run = tmp_path_factory.mktemp("runs") / "a"
    options = {
        "model": "small",
        "epochs": 4,
        "batch_size": 64,
        "augmentation": "none",
        "save_every": "1steps",
    }
    config = TrainConfig(data_dir=striped.data_dir, run=run, **options)
    with pytest.raises(CrashError):
        train_and_evaluate(config, [Crash(2)])
    return config


@pytest.fixture
def unfinished(stopped, tmp_path):
    """A copy of it."""
    shutil.copytree(stopped.run, tmp_path / "run")
    return dataclasses.replace(stopped, run=tmp_path / "run")


def epochs_of(run):
    return [line.split(",")[0] for line in RunFolder(run).history.read_text().splitlines()[1:]]


def best_weights(run):
    return keras.saving.load_model(RunFolder(run).best_model).get_weights()


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"epochs": 30}, "--epochs was 4, now 30"),
        ({"seed": 7}, "--seed was 123, now 7"),
        ({"precision": "mixed_float16"}, "--precision was float32, now mixed_float16"),
        (
            {"batch_size": 32, "learning_rate": 0.5},
            "--batch-size was 64, now 32; --learning-rate was 0.002, now 0.5",
        ),
    ],
)
def test_other_options_are_refused_with_the_difference(unfinished, options, difference):
    sentence = (
        f"{unfinished.run}: holds an unfinished run of other options: {difference}. Give the same options to go on "
        "with it, --no-resume to throw it away, or another --run"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        train_and_evaluate(dataclasses.replace(unfinished, **options))


@pytest.mark.parametrize(
    ("name", "what"), [("num_replicas", "the number of devices"), ("num_workers", "the number of workers")]
)
def test_more_devices_or_workers_are_another_run(unfinished, name, what):
    options = json.loads(RunFolder(unfinished.run).config.read_text())
    assert differences(options, options | {name: 4}) == [f"{what} was 1, now 4"]
    assert differences(options, options | {"hosts": "a:1,b:2", "rank": 1, "strategy": "mirrored"}) == []


def test_another_dataset_is_refused(unfinished, make_dataset):
    other = dataclasses.replace(unfinished, data_dir=make_dataset(num_train=192).data_dir)
    with pytest.raises(ConfigError, match=r"the fingerprint of the dataset was [0-9a-f]+, now [0-9a-f]+"):
        train_and_evaluate(other)


@pytest.mark.parametrize("cache", ["none", "disk"])
def test_the_cache_may_be_another_one(unfinished, tmp_path, cache):
    moved = dataclasses.replace(
        unfinished, save_every="1h", grace="1s", json=True, cache=cache, cache_dir=tmp_path / "caches"
    )
    result = train_and_evaluate(moved)
    assert (result.epochs, epochs_of(result.run)) == (4, ["1", "2", "3", "4"])


def test_other_versions_go_on_with_a_warning(unfinished, caplog):
    path = RunFolder(unfinished.run).config
    path.write_text(path.read_text().replace(f'"keras": "{keras.__version__}"', '"keras": "3.0.0"'))
    with pytest.raises(CrashError):
        train_and_evaluate(unfinished, [Crash(2)])
    assert "this run began with other versions (" in caplog.text
    assert "keras 3.0.0" in caplog.text


def test_a_run_of_another_order_of_examples_is_refused(unfinished):
    path = RunFolder(unfinished.run).config
    options = json.loads(path.read_text())
    del options["order_version"]
    path.write_text(json.dumps(options))
    sentence = (
        f"{unfinished.run}: holds an unfinished run whose examples came in the order of another version of "
        "shardstream; finish it with that version, or give --no-resume to throw it away, or another --run"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        train_and_evaluate(unfinished)
    with pytest.raises(CrashError):
        train_and_evaluate(dataclasses.replace(unfinished, resume=False), [Crash(1)])


def test_no_resume_begins_anew(unfinished, caplog):
    with caplog.at_level(logging.INFO, logger="shardstream.train"), pytest.raises(CrashError):
        train_and_evaluate(dataclasses.replace(unfinished, resume=False, seed=7), [Crash(1)])
    assert epochs_of(unfinished.run) == ["1"]
    assert "goes on" not in caplog.text


def test_a_run_that_ended_before_its_first_state_begins_anew(unfinished):
    for path in RunFolder(unfinished.run).checkpoints.iterdir():
        path.unlink()
    with pytest.raises(CrashError):
        train_and_evaluate(dataclasses.replace(unfinished, seed=7), [Crash(1)])
    assert epochs_of(unfinished.run) == ["1"]


def test_results_are_made_to_agree_with_the_state(unfinished):
    """What a process wrote after the state that is gone on with was saved, is as if it had never been."""
    folder = RunFolder(unfinished.run)
    expected = best_weights(unfinished.run)
    keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]).save(folder.best_model)
    folder.history.write_text("epoch\n1\n2\n3\n")
    with pytest.raises(CrashError):
        train_and_evaluate(unfinished, [Crash(2)])
    for mine, theirs in zip(best_weights(unfinished.run), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert epochs_of(unfinished.run) == ["1", "2"]


def test_a_state_of_another_model_is_refused(unfinished, monkeypatch):
    def build_wider(name, **options):
        options["num_classes"] += 1
        return build_tiny(name, **options)

    monkeypatch.setattr(shardstream.train.resolve, "build_model", build_wider)
    with pytest.raises(
        DatasetError,
        match=r"the checkpoint is of another model: variable '.*' is \('float32', .* there, expected \('float32', ",
    ):
        train_and_evaluate(unfinished)


class Limit(keras.callbacks.Callback):
    """No file may be larger than `num_bytes` from the second epoch on, and any may in the last."""

    def __init__(self, num_bytes: int) -> None:
        super().__init__()
        self.num_bytes = num_bytes
        self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_epoch_begin(self, epoch, logs=None):
        soft = self.num_bytes if epoch in (1, 2) else self.limits[0]
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, self.limits[1]))

    def lift(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)


def test_a_full_disk_is_outlasted_and_costs_nothing_in_the_end(stopped, tmp_path, caplog):
    results = []
    for name, num_bytes in (("never full", resource.RLIM_INFINITY), ("full", 100)):
        limit = Limit(num_bytes)
        try:
            config = dataclasses.replace(stopped, run=tmp_path / name, epochs=4)
            train_and_evaluate(config, [limit])
        finally:
            limit.lift()
        results.append(best_weights(config.run))
        assert epochs_of(config.run) == ["1", "2", "3", "4"]
        warnings = [record.levelname for record in caplog.records if record.name.startswith("shardstream")]
        assert ("WARNING" in warnings) == (name == "full")
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    kept = "training goes on, and the last state that is kept is that of the end of epoch 1"
    assert [
        message for message in caplog.messages if message.startswith(f"{config.run / 'logs'}: not written (")
    ]
    assert f"the state was not saved (File too large); {kept}" in caplog.messages
    assert f"{config.run / 'history.csv'}: not written (File too large); training goes on" in caplog.messages


class Spoil(keras.callbacks.Callback):
    """Makes the weights no numbers after a step of the second epoch."""

    reads_batches_rarely = True

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == (1, 2):
            kernel = self.model.trainable_variables[0]
            kernel.assign(np.full(kernel.shape, np.nan))


def test_a_run_whose_loss_is_no_number_ends_and_its_last_sound_state_is_kept(stopped, tmp_path):
    config = dataclasses.replace(stopped, run=tmp_path / "run")
    with pytest.raises(DivergedError) as diverged:
        train_and_evaluate(config, [Spoil()])
    sentence = str(diverged.value)
    assert sentence.startswith("NaN loss at step 3 of epoch 2, with the images a/")
    assert sentence.endswith("; the last state that is kept is that of step 2 of epoch 2")
    names = (config.run / "diverged.txt").read_text().splitlines()
    assert len(set(names)) == 64
    assert ", ".join(names[:3]) in sentence
    checkpoint = Checkpoints(RunFolder(config.run).checkpoints).latest()
    assert checkpoint is not None
    assert (checkpoint.position.epoch, checkpoint.position.step) == (1, 2)


def status(run, capsys) -> dict:
    assert main(["status", str(run), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_status_of_a_run_that_was_stopped_one_at_work_and_one_that_is_finished(unfinished, capsys):
    found = status(unfinished.run, capsys)
    position = {"epochs": 4, "steps_per_epoch": 3, "epoch": 2, "step": 0}
    assert {name: found[name] for name in position} == position
    assert (found["condition"], found["process"]) == ("stopped", None)
    assert found["checkpoint_age_secs"] >= 0
    assert found["secs_left"] > 0
    with locked_by_this_process(RunFolder(unfinished.run).lock):
        found = status(unfinished.run, capsys)
        assert (found["condition"], set(found["process"])) == ("running", {"pid", "host"})
    assert list(found["rate"]) == ["images_per_sec", "images_per_sec_per_core", "input_wait"]
    assert min(found["rate"].values()) > 0
    result = train_and_evaluate(unfinished)
    found = status(unfinished.run, capsys)
    assert (found["condition"], found["epoch"], found["checkpoint_age_secs"]) == ("finished", 4, None)
    assert (found["best_epoch"], found["best_val_loss"]) == (result.best_epoch, result.val_loss)


def test_status_of_a_run_that_starts(tmp_path, capsys):
    with RunFolder(tmp_path / "run").locked():
        assert main(["status", str(tmp_path / "run")]) == 2
        error = capsys.readouterr().err
    assert f"{tmp_path / 'run'}: process {os.getpid()} on " in error
    assert error.endswith(" starts a run there; ask again in a moment\n")


def test_status_in_words(unfinished, capsys):
    assert main(["status", str(unfinished.run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        *("run", "epochs", "saved", "best so far", "rate", "left")
    ]
    assert lines[0].endswith("  stopped")
    assert lines[1].endswith("  2 of 4")
    rate = r"rate +[\d,]+ img/s \([\d,]+ a core\), \d+% of the time waiting for input"
    assert re.fullmatch(rate, lines[4])


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_status_of_what_is_no_run(tmp_path, capsys, content):
    if content is not None:
        RunFolder(tmp_path).config.write_text(content)
    assert main(["status", str(tmp_path)]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert str(tmp_path) in errors


def test_two_processes_do_not_share_a_run_folder(unfinished):
    with (
        locked_by_this_process(RunFolder(unfinished.run).lock),
        pytest.raises(
            ConfigError, match=r"process \d+ on .* is at work there; wait for it or choose another"
        ),
    ):
        train_and_evaluate(unfinished)


def test_positions_of_the_checkpoints_are_those_of_the_loop(stopped):
    paths = Checkpoints(RunFolder(stopped.run).checkpoints).paths()
    assert [path.stem for path in paths] == ["000002-000000000", "000001-000000003"]


def test_a_refused_run_leaves_no_folder(striped, tmp_path):
    config = TrainConfig(data_dir=striped.data_dir, run=tmp_path / "run", batch_size=1000)
    with contextlib.suppress(ConfigError):
        train_and_evaluate(config)
    assert list(tmp_path.iterdir()) == []
