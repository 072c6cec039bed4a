import csv
import json
import re

import keras
import numpy as np
import pytest

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.train.config import TrainConfig
from shardstream.train.data.dataset import Dataset
from shardstream.train.resolve import prepare
from shardstream.train.run import train_and_evaluate
from shardstream.train.runs.saved_model import ModelInfo, load_model


class BestWeights(keras.callbacks.Callback):
    """Keeps the weights of the best epoch, as the run has to."""

    def __init__(self) -> None:
        super().__init__()
        self.figures: list[tuple[float, float]] = []
        self.weights: list[np.ndarray] = []

    def on_epoch_end(self, epoch, logs=None):
        self.figures.append((-logs["val_accuracy"], logs["val_loss"]))
        if min(self.figures) == self.figures[-1]:
            self.weights = self.model.get_weights()


@pytest.fixture(scope="module")
def run(striped, tmp_path_factory):
    """The default model and, but for the number of epochs, default options."""
    config = TrainConfig(data_dir=striped.data_dir, run=tmp_path_factory.mktemp("runs") / "a", epochs=8)
    watcher = BestWeights()
    result = train_and_evaluate(config, callbacks=[watcher])
    return config.run, result, watcher


def test_the_model_learns(run):
    folder, result, _ = run
    assert result.val_accuracy >= 0.9
    rows = read_history(folder)
    assert float(rows[-1]["loss"]) < 0.7 * float(rows[0]["loss"])


def read_history(folder):
    with (folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_run_folder_is_complete(run):
    folder, _, _ = run
    names = [
        ".lock",
        "best.keras",
        "config.json",
        "curves.png",
        "history.csv",
        "last.keras",
        "logs",
        "model.json",
    ]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert sorted(path.name for path in (folder / "logs").iterdir()) == ["train", "validation"]


def test_the_result_is_that_of_the_best_epoch(run):
    folder, result, watcher = run
    rows = read_history(folder)
    assert len(rows) == result.epochs == 8
    best = min(rows, key=lambda row: (-float(row["val_accuracy"]), float(row["val_loss"])))
    assert (int(best["epoch"]), float(best["val_loss"])) == (result.best_epoch, result.val_loss)
    assert float(best["val_accuracy"]) == result.val_accuracy
    assert (-result.val_accuracy, result.val_loss) == min(watcher.figures)


def test_the_best_model_is_the_one_of_that_epoch_and_predicts_as_evaluated(run, striped):
    folder, result, watcher = run
    model, _ = load_model(folder)
    for mine, theirs in zip(model.get_weights(), watcher.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    (batch,) = Dataset(striped).eval_batches("validation", batch_size=50)
    images, labels, _ = (tensor.numpy() for tensor in batch)
    probabilities = model.predict(images, verbose=0)
    assert (probabilities.argmax(axis=1) == labels).mean() == pytest.approx(result.val_accuracy)
    losses = -np.log(probabilities[np.arange(50), labels])
    assert losses.mean() == pytest.approx(result.val_loss, rel=1e-4)


def test_what_was_trained_is_what_is_predicted(run, striped):
    folder, result, _ = run
    info = ModelInfo.load(folder)
    assert (info.class_names, info.display_names) == (striped.class_names, striped.display_names)
    assert (info.image_size, info.resize, info.model, info.precision) == (16, "stretch", "small", "float32")
    assert info.dataset_fingerprint == striped.fingerprint
    assert info.num_parameters == result.num_parameters


def test_the_config_is_kept_with_everything_decided(run, striped):
    folder, _, _ = run
    config = json.loads((folder / "config.json").read_text())
    decided = {
        "image_size": 16,
        "precision": "float32",
        "batch_size": 16,
        "seed": 123,
        "cache": "auto",
        "num_replicas": 1,
    }
    assert {name: config[name] for name in decided} == decided
    assert config["learning_rate"] > 0
    assert config["dataset_fingerprint"] == striped.fingerprint
    assert config["versions"]["keras"] == keras.__version__


def test_a_second_run_into_the_same_folder_is_refused(run, striped):
    folder, _, _ = run
    with pytest.raises(
        ConfigError, match="holds a finished run already; choose another --run, with --model small --weights"
    ):
        train_and_evaluate(TrainConfig(data_dir=striped.data_dir, run=folder))


def test_the_same_seed_gives_the_same_run(striped, tmp_path):
    """Streamed and in half precision, at values that are not the defaults."""
    options = {"cache": "none", "precision": "mixed_bfloat16", "epochs": 1, "batch_size": 48, "image_size": 8}
    watchers = [BestWeights() for _ in range(3)]
    for name, seed, watcher in zip("abc", (1, 1, 2), watchers, strict=True):
        config = TrainConfig(
            data_dir=striped.data_dir, run=tmp_path / name, model="notebook", seed=seed, **options
        )
        train_and_evaluate(config, callbacks=[watcher])
    one, again, other = (np.concatenate([w.ravel() for w in watcher.weights]) for watcher in watchers)
    # Not to the last bit: threads add up in any order.
    assert np.abs(one - again).mean() < 0.01 * np.abs(one - other).mean()
    info = ModelInfo.load(tmp_path / "a")
    assert (info.model, info.image_size, info.precision) == ("notebook", 8, "mixed_bfloat16")
    assert load_model(tmp_path / "a")[0].dtype_policy.name == "float32"


def config_for(info, tmp_path, **options) -> TrainConfig:
    return TrainConfig(data_dir=info.data_dir, run=tmp_path / "run", **options)


def test_a_batch_larger_than_the_split_is_refused(striped, tmp_path):
    sentence = (
        "batch_size 193 is larger than split 'train' with its 192 examples; choose a smaller --batch-size"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        train_and_evaluate(config_for(striped, tmp_path, batch_size=193))
    assert not (tmp_path / "run").exists()


def test_more_epochs_for_the_head_than_there_are_are_refused(striped, tmp_path):
    with pytest.raises(ConfigError, match=r"^head_epochs 51 is more than the 50 epochs there are$"):
        train_and_evaluate(config_for(striped, tmp_path, model="small", weights="a.h5", head_epochs=51))


@pytest.mark.parametrize(
    ("options", "batch_size", "epochs"),
    [({}, 16, 50), ({"batch_size": 48}, 48, 100), ({"epochs": 3}, 16, 3), ({"model": "notebook"}, 32, 20)],
)
def test_few_pictures_make_small_batches_and_many_epochs(striped, tmp_path, options, batch_size, epochs):
    setup = prepare(config_for(striped, tmp_path, image_size=8, **options))
    assert (setup.batch_size, setup.epochs, setup.steps_per_epoch) == (batch_size, epochs, 192 // batch_size)
    assert setup.describe() | {"batch_size": batch_size, "epochs": epochs} == setup.describe()


def test_a_dataset_without_a_validation_split_is_refused(make_dataset, tmp_path):
    info = make_dataset(num_train=40, num_validation=0)
    with pytest.raises(
        DatasetError, match="no split 'validation', which training needs; build the dataset with"
    ):
        train_and_evaluate(config_for(info, tmp_path))


def test_a_missing_shard_is_refused_before_anything_is_written(make_dataset, tmp_path):
    info = make_dataset()
    (info.data_dir / info.split("train").shards[2].filename).unlink()
    with pytest.raises(DatasetError, match="00002-of-00003: no such shard; `shardstream-ingest repair"):
        train_and_evaluate(config_for(info, tmp_path))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("stored", "wanted", "expected"), [(16, None, 16), (16, 24, 24), (None, None, 300)])
def test_image_size(make_dataset, tmp_path, stored, wanted, expected):
    from shardstream.ingest.images.settings import ImageSettings

    image = ImageSettings(size=stored, resize="stretch", encoding="png", quality=95)
    data = make_dataset(image=image, num_train=32, num_validation=1)
    config = config_for(data, tmp_path, model="small", image_size=wanted)
    assert prepare(config).image_size == expected
