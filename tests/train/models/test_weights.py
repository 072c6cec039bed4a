"""Weights from elsewhere: from files that the tests make, as there is no network here."""

import re

import keras
import numpy as np
import pytest

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.train.config import TrainConfig
from shardstream.train.distributed.strategy import set_seed
from shardstream.train.models.build import CLASSIFIER, build_application, build_model
from shardstream.train.models.registry import APPLICATIONS
from shardstream.train.models.weights import load_weights
from shardstream.train.run import train_and_evaluate
from shardstream.train.runs.earlier_weights import begin_with
from shardstream.train.runs.run_folder import RunFolder

NAME = "MobileNetV3Small"
APPLICATION = APPLICATIONS[NAME]
PICTURES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


def build(name: str = NAME, **options) -> keras.Model:
    set_seed(options.pop("weights_seed", 0))
    return build_model(name, **{"image_size": 32, "num_classes": 3, "seed": 0, **options})


def features(model: keras.Model) -> np.ndarray:
    return np.asarray(keras.Model(model.input, model.get_layer(CLASSIFIER).input)(PICTURES))


@pytest.fixture(scope="module")
def application():
    """A model as Keras has it, with weights of its own."""
    set_seed(7)
    return build_application(APPLICATION, image_size=32)


@pytest.mark.parametrize("name", ["a.weights.h5", "a.keras"])
def test_an_applications_own_file(application, tmp_path, name):
    path = tmp_path / name
    application.save_weights(path) if name.endswith(".h5") else application.save(path)
    model = build()
    before = features(model)
    load_weights(model, str(path))
    # Its preprocessing is inside, so pictures go in as they are on both sides.
    expected = np.asarray(application(PICTURES.astype(np.float32), training=False))
    largest = np.abs(expected).max()
    np.testing.assert_allclose(features(model), expected, rtol=0, atol=1e-3 * largest)
    assert np.abs(before - expected).max() > 0.1 * largest


@pytest.mark.parametrize("name", ["small", pytest.param(NAME, marks=pytest.mark.slow)])
def test_a_model_of_an_earlier_run_with_other_classes(tmp_path, name):
    earlier = build(name, weights_seed=5, num_classes=7)
    earlier.save(tmp_path / "best.keras")
    model = build(name)
    head = model.get_layer(CLASSIFIER).get_weights()
    load_weights(model, str(tmp_path / "best.keras"))
    np.testing.assert_array_equal(features(model), features(earlier))
    for before, after in zip(head, model.get_layer(CLASSIFIER).get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_weights_alone_of_a_model_of_ours(tmp_path):
    earlier = build("small", weights_seed=5)
    earlier.save_weights(tmp_path / "a.weights.h5")
    model = build("small")
    load_weights(model, str(tmp_path / "a.weights.h5"))
    np.testing.assert_array_equal(features(model), features(earlier))


@pytest.mark.slow
def test_efficientnet_whose_file_holds_what_imagenets_pictures_are_like(tmp_path):
    set_seed(7)
    application = build_application(APPLICATIONS["EfficientNetB0"], image_size=32)
    application.save_weights(tmp_path / "a.weights.h5")
    model = build("EfficientNetB0")
    load_weights(model, str(tmp_path / "a.weights.h5"))
    normalized = (PICTURES / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    # The application's own normalization has learnt nothing, so it is given its pictures normalized.
    expected = np.asarray(application((255 * normalized).astype(np.float32), training=False))
    np.testing.assert_allclose(features(model), expected, rtol=0, atol=1e-3 * np.abs(expected).max())


def refused(error: type[Exception], sentence: str, model: keras.Model, weights: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(sentence)}") as caught:
        load_weights(model, weights)
    assert "\n" not in str(caught.value)


def test_files_that_are_of_no_use_are_refused_in_one_sentence(application, tmp_path):
    model = build("small")
    refused(ConfigError, f"--weights {tmp_path}/a.h5: no such file; give none, ", model, f"{tmp_path}/a.h5")
    (tmp_path / "a.txt").write_text("")
    refused(ConfigError, f"--weights {tmp_path}/a.txt: not a .keras, ", model, f"{tmp_path}/a.txt")
    for name in ("a.h5", "a.weights.h5", "a.keras"):
        (tmp_path / name).write_bytes(b"no such thing")
        sentence = f"{tmp_path}/{name}: cannot be loaded as weights of 'small': "
        refused(DatasetError, sentence, model, f"{tmp_path}/{name}")
    application.save(tmp_path / "b.keras")
    sentence = (
        f"{tmp_path}/b.keras: not of the model 'small': layer {model.layers[2].name!r} has weights of the shapes "
        "[(5, 5, 3, 16)], in the file 'conv' has [(3, 3, 3, 16)]"
    )
    refused(DatasetError, sentence, model, f"{tmp_path}/b.keras")


def test_a_file_of_a_deeper_model_is_refused(tmp_path):
    model = build("small")
    shallow = keras.Model(model.input, [layer for layer in model.layers if layer.weights][3].output)
    shallow.save(tmp_path / "a.keras")
    sentence = f"{tmp_path}/a.keras: not of the model 'small': it has 20 layers with weights, the file 4"
    refused(DatasetError, sentence, model, f"{tmp_path}/a.keras")


def test_without_the_internet(monkeypatch):
    def fail(*_, **__):
        raise Exception("URL fetch failure on https://example.org/x.h5: None -- [Errno -2]\nmore")

    monkeypatch.setattr(keras.src.applications.mobilenet_v3.file_utils, "get_file", fail)
    sentence = (
        f"the ImageNet weights of {NAME} could not be loaded (URL fetch failure on https://example.org/x.h5: "
        "None -- [Errno -2]); without the internet, fetch the file elsewhere and give --weights PATH"
    )
    with pytest.warns(UserWarning, match="Weights for input shape"):
        refused(ConfigError, sentence, build(), "imagenet")


class Watch(keras.callbacks.Callback):
    """Keeps the weights of the convolutions, the moments and the last layer after each epoch, and the rates."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, np.ndarray]] = []
        self.rates: list[float] = []

    def on_epoch_begin(self, epoch, logs=None):
        self.note()

    def on_epoch_end(self, epoch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))

    def on_train_end(self, logs=None):
        self.note()

    def note(self):
        self.seen.append({f"{i} {v.path}": np.array(v) for i, v in enumerate(self.model.weights)})

    def changed(self, epoch: int) -> set[str]:
        before, after = self.seen[epoch : epoch + 2]
        return {name for name in before if not np.array_equal(before[name], after[name])}


def test_the_head_is_trained_alone_then_all_at_a_lower_rate_and_moments_stay(striped, tmp_path):
    earlier = build("small", weights_seed=5, num_classes=2, image_size=16)
    earlier.save(tmp_path / "best.keras")
    config = TrainConfig(
        data_dir=striped.data_dir,
        run=tmp_path / "run",
        model="small",
        weights=str(tmp_path / "best.keras"),
        epochs=3,
        head_epochs=1,
        learning_rate=0.01,
        fine_tune_learning_rate=0.001,
        batch_size=64,
    )
    watch = Watch()
    train_and_evaluate(config, [watch])
    assert {name.split(" ")[1].split("/")[0] for name in watch.changed(0)} == {CLASSIFIER}
    kernels = {name for name in watch.seen[0] if name.endswith("/kernel")}
    assert kernels <= watch.changed(1)
    assert not [name for epoch in range(3) for name in watch.changed(epoch) if "normalization" in name]
    # At the end of its cosine each phase has come down to 0; in between it is below its own highest rate.
    assert watch.rates[0] == pytest.approx(0, abs=1e-6)
    assert 0 < watch.rates[1] <= 0.001
    last = keras.saving.load_model(RunFolder(config.run).last_model)
    for mine, theirs in zip(last.get_weights(), watch.seen[-1].values(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_run_with_the_same_classes_gives_its_last_layer_too(tmp_path, make_dataset):
    data = make_dataset()
    options = {"data_dir": data.data_dir, "model": "small", "batch_size": 8}
    train_and_evaluate(TrainConfig(run=tmp_path / "run", epochs=1, **options))
    earlier = keras.saving.load_model(tmp_path / "run/best.keras")
    order = [2, 0, 1]
    model = build_model("small", image_size=earlier.input_shape[1], num_classes=3, seed=1)
    begin_with(model, str(tmp_path / "run"), [data.class_names[number] for number in order])
    pictures = np.random.default_rng(0).integers(0, 256, (4, *earlier.input_shape[1:]), np.uint8)
    expected = np.asarray(earlier(pictures, training=False))[:, order]
    np.testing.assert_allclose(np.asarray(model(pictures, training=False)), expected, atol=1e-6)
    head = model.get_layer(CLASSIFIER).get_weights()
    begin_with(model, str(tmp_path / "run/last.keras"), ["other", "classes", "here"])
    np.testing.assert_array_equal(model.get_layer(CLASSIFIER).get_weights()[0], head[0])
