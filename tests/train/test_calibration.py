import json

import numpy as np
import pytest

from shardstream.train.config import TrainConfig
from shardstream.train.data.dataset import Dataset
from shardstream.train.run import train_and_evaluate
from shardstream.train.runs.saved_model import load_model

SIZE = 16


def unsure(number, label):
    """A fifth of the labels is wrong."""
    shown = (label + (number % 5 == 0)) % 3
    noise = np.random.default_rng([number, label]).normal(0, 20, (SIZE, SIZE, 3))
    return np.clip(60 + 60 * shown + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("model", ["small", "notebook"])
def test_the_model_file_is_calibrated_on_the_validation_split(make_dataset, tmp_path, model):
    info = make_dataset(num_train=96, num_validation=120, picture=unsure)
    options = {"model": model, "epochs": 2, "batch_size": 16}
    result = train_and_evaluate(TrainConfig(data_dir=info.data_dir, run=tmp_path / "run", **options))
    assert result.temperature != 1
    assert json.loads((tmp_path / "run/model.json").read_text())["temperature"] == result.temperature
    (batch,) = Dataset(info).eval_batches("validation", batch_size=120)
    images, labels, _ = (tensor.numpy() for tensor in batch)
    logits = np.log(load_model(tmp_path / "run")[0].predict(images, verbose=0))
    assert (logits.argmax(axis=1) == labels).mean() == pytest.approx(result.val_accuracy)

    def loss(scale):
        scaled = scale * logits
        return (np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(120), labels]).mean()

    assert loss(1) == pytest.approx(result.val_loss, rel=1e-2)
    # What was removed by the temperature is not better than what is there now.
    assert loss(1) <= loss(result.temperature) + 1e-4


def test_too_few_images_calibrate_nothing(striped, tmp_path):
    options = {"model": "small", "epochs": 1, "batch_size": 64}
    result = train_and_evaluate(TrainConfig(data_dir=striped.data_dir, run=tmp_path / "run", **options))
    assert result.temperature == 1
