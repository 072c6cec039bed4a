"""ResumeCallback within one process: what it saves, what it refuses. Real kills: test_resume_callback_killed.py."""

import errno
import json
import shutil
import signal
from pathlib import Path

import keras
import numpy as np
import pytest

from shardstream.ingest.common.errors import ConfigError
from shardstream.train.data.dataset import Dataset
from shardstream.train.runs.checkpoint import Checkpoint
from shardstream.train.runs.process_lock import locked_by_this_process
from shardstream.train.runs.resume_callback import ResumeCallback

STEPS = 192 // 16


def compiled_model(optimizer: str = "sgd", **options) -> keras.Model:
    layers = [
        keras.layers.Rescaling(1 / 255),
        keras.layers.Flatten(),
        keras.layers.Dense(3, activation="softmax"),
    ]
    model = keras.Sequential(layers)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], **options)
    return model


@pytest.fixture
def data(striped) -> Dataset:
    return Dataset(striped)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "run"


def fit(
    resume: ResumeCallback, model: keras.Model, *others: keras.callbacks.Callback, epochs: int = 3, **options
):
    options = {
        "steps_per_epoch": STEPS,
        "initial_epoch": resume.initial_epoch,
        "verbose": 0,
        "shuffle": False,
        **options,
    }
    return model.fit(resume.batches(), epochs=epochs, callbacks=[*others, resume], **options)


class Failure(Exception):
    pass


class FailAt(keras.callbacks.Callback):
    """Fails once after so many steps."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.steps_left = step

    def on_train_batch_end(self, batch, logs=None):
        self.steps_left -= 1
        if not self.steps_left:
            raise Failure


def begun(folder: Path, data: Dataset, **options) -> None:
    """Leaves a training after step 5 of the second epoch."""
    resume = ResumeCallback(folder, data, batch_size=16, seed=7, save_every=5)
    with pytest.raises(Failure):
        fit(resume, compiled_model(**options), FailAt(STEPS + 7))
    resume.on_train_end()  # As the end of a process does, it releases the folder.


def test_epochs_keep_their_numbers_and_stop_early(folder, data):
    begun(folder, data)
    resume = ResumeCallback(folder, data, batch_size=16, seed=7)
    assert (resume.initial_epoch, resume.start_step) == (1, STEPS + 5)
    # The epoch that was resumed is ended by ResumeCallback, the training by the other one.
    stopping = keras.callbacks.EarlyStopping("accuracy", mode="min", patience=0, start_from_epoch=1)
    seen = fit(resume, compiled_model(), stopping, epochs=40)
    assert seen.epoch[0] == 1
    assert 1 <= len(seen.epoch) < 39
    assert ResumeCallback(folder, data, batch_size=16, seed=7).initial_epoch == seen.epoch[-1] + 1


def test_the_same_callback_goes_on_after_a_failure_and_after_its_end(folder, data):
    keras.utils.set_random_seed(1)
    whole = compiled_model()
    fit(ResumeCallback(folder.with_name("whole"), data, batch_size=16, seed=7), whole)
    keras.utils.set_random_seed(1)
    model = compiled_model()
    resume = ResumeCallback(folder, data, batch_size=16, seed=7)
    with pytest.raises(Failure):
        fit(resume, model, FailAt(3))
    fit(resume, model, epochs=1)
    fit(resume, model, epochs=3)
    for expected, found in zip(whole.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_sigterm_in_validation_saves_the_end_of_the_epoch(folder, data):
    class Terminate(keras.callbacks.Callback):
        def on_test_batch_begin(self, batch, logs=None):
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    resume = ResumeCallback(folder, data, batch_size=16, seed=7)
    validation = data.eval_batches("validation", batch_size=16)
    with pytest.raises(SystemExit, match="143"):
        fit(resume, compiled_model(), Terminate(), validation_data=validation)
    assert ResumeCallback(folder, data, batch_size=16, seed=7).start_step == STEPS
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_full_disk_does_not_end_the_training(folder, data, monkeypatch, caplog):
    def write(self, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Checkpoint, "write", write)
    resume = ResumeCallback(folder, data, batch_size=16, seed=7)
    fit(resume, compiled_model(), epochs=1)
    assert "the state of the end of epoch 1 was not saved: No space left on device" in caplog.text


def test_another_process_is_kept_out(folder, data):
    begun(folder, data)
    resume = ResumeCallback(folder, data, batch_size=16, seed=7)
    with locked_by_this_process(folder / ".lock"), pytest.raises(ConfigError, match="is at work there"):
        fit(resume, compiled_model())
    # It has trained on since this one looked.
    fit(ResumeCallback(folder, data, batch_size=16, seed=7), compiled_model(), epochs=2)
    with pytest.raises(ConfigError, match="another process has trained on; start again"):
        fit(resume, compiled_model())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 8}, "begun with batch_size=16, now it is 8; use the same or choose another folder"),
        ({"seed": 8}, "begun with seed=7, now it is 8"),
        ({"image_size": 8}, "begun with image_size=16, now it is 8"),
        ({"max_bad_records": 2}, "begun with max_bad_records=0, now it is 2"),
        ({"split": "validation"}, "begun with split='train', now it is 'validation'"),
        ({"save_every": 0}, "save_every must be a positive number of steps, got 0"),
        ({"start_step": 3}, "ResumeCallback decides start_step"),
    ],
)
def test_options_that_do_not_fit_the_folder_are_refused(begun_folder, data, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        ResumeCallback(begun_folder, data, **{"batch_size": 16, "seed": 7, **options})


@pytest.fixture(scope="module")
def begun_folder(striped, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("begun") / "run"
    begun(folder, Dataset(striped))
    return folder


def test_other_data_is_refused(begun_folder, make_dataset):
    with pytest.raises(ConfigError, match="begun with data="):
        ResumeCallback(begun_folder, Dataset(make_dataset(num_train=192)), batch_size=16, seed=7)


@pytest.mark.parametrize(("before", "said"), [(0, 0), (None, 1)])
def test_another_order_of_examples_is_refused(begun_folder, data, tmp_path, before, said):
    """A folder from before there was a number of the order has the first one."""
    folder = shutil.copytree(begun_folder, tmp_path / "copy")
    path = folder / "resume.json"
    identity = json.loads(path.read_text())
    del identity["order_version"]
    path.write_text(json.dumps(identity if before is None else identity | {"order_version": before}))
    with pytest.raises(ConfigError, match=f"begun with order_version={said}, now it is 2"):
        ResumeCallback(folder, data, batch_size=16, seed=7)


def test_caches_and_shards_may_differ(begun_folder, data):
    options = {"cache": "memory", "shard": (1, 2)}
    assert ResumeCallback(begun_folder, data, batch_size=16, seed=7, **options).start_step == STEPS + 5


@pytest.mark.parametrize(
    ("model", "options", "sentence"),
    [
        ({}, {"steps_per_epoch": 5}, r"steps_per_epoch must be data.steps_per_epoch\(16\) = 12, got 5"),
        (
            {},
            {"initial_epoch": 0},
            r"epoch 1 comes next, got 0; use fit\(initial_epoch=resume.initial_epoch\)",
        ),
        ({"optimizer": "adam"}, {}, "saved with another model or optimizer: variable '"),
        ({"steps_per_execution": 2}, {}, "must divide the 12 steps of an epoch and the 5 that are done"),
    ],
)
def test_a_fit_that_does_not_go_on_is_refused(begun_folder, data, model, options, sentence):
    resume = ResumeCallback(begun_folder, data, batch_size=16, seed=7)
    with pytest.raises(ConfigError, match=sentence):
        fit(resume, compiled_model(**model), **options)


def test_files_of_others_are_left_alone(folder, data):
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds files that ResumeCallback did not write"):
        ResumeCallback(folder, data, batch_size=16, seed=7)


class Subclassed(keras.Model):
    """Creates the variables of its layers when it is called, and has no `build` of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scaled = keras.layers.Rescaling(1 / 255)
        self.dropped = keras.layers.Dropout(0.3, seed=2)
        self.flat = keras.layers.Flatten()
        self.classes = keras.layers.Dense(3, activation="softmax")

    def call(self, images, training=False):
        return self.classes(self.dropped(self.flat(self.scaled(images)), training=training))


def test_a_subclass_of_model_is_resumed_too(folder, data):
    def train(path: Path, *others: keras.callbacks.Callback) -> list[np.ndarray]:
        keras.utils.set_random_seed(1)
        model = Subclassed()
        model.compile("adam", "sparse_categorical_crossentropy")
        fit(ResumeCallback(path, data, batch_size=16, seed=7, save_every=2), model, *others, epochs=2)
        return model.get_weights()

    expected = train(folder.with_name("undisturbed"))
    with pytest.raises(Failure):
        train(folder, FailAt(STEPS + 5))
    for mine, theirs in zip(train(folder), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_who_looked_before_another_process_trained_does_not_begin_anew(folder, data):
    late = ResumeCallback(folder, data, batch_size=16, seed=7)
    fit(ResumeCallback(folder, data, batch_size=16, seed=7), compiled_model(), epochs=1)
    before = sorted((folder / "checkpoints").iterdir())
    with pytest.raises(ConfigError, match="another process has trained on; start again"):
        fit(late, compiled_model())
    assert sorted((folder / "checkpoints").iterdir()) == before


@pytest.mark.parametrize("grace_secs", [0, -1, float("nan")])
def test_a_grace_period_is_a_time(folder, data, grace_secs):
    with pytest.raises(ConfigError, match=f"grace_secs must be positive, got {grace_secs}"):
        ResumeCallback(folder, data, batch_size=16, seed=7, grace_secs=grace_secs)
