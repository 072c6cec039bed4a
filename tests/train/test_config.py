import json
import re
from pathlib import Path

import numpy as np
import pytest

from shardstream.ingest.common.errors import ConfigError
from shardstream.train.config import TrainConfig


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"image_size": 0}, "image_size must be at least 8, got 0"),
        ({"image_size": 4}, "image_size must be at least 8, got 4"),
        ({"image_size": 4097}, "image_size must be at most 4096, got 4097"),
        ({"seed": 2**32}, "seed must be at most 4294967295, got 4294967296"),
        ({"steps_per_execution": 10**30}, f"steps_per_execution must be at most 1000, got {10**30}"),
        ({"weight_decay": float("inf")}, "weight_decay must be at most 3.4e+38, got inf"),
        ({"learning_rate": 1e300}, "learning_rate must be at most 3.4e+38, got 1e+300"),
        ({"warmup_epochs": 5.0, "epochs": 3}, "warmup_epochs 5 is more than the 3 epochs there are"),
        # From Python, where no parser has looked at them.
        ({"epochs": 2.5}, "epochs must be a whole number or None, got 2.5"),
        ({"batch_size": "32"}, "batch_size must be a whole number or None, got '32'"),
        ({"seed": None}, "seed must be a whole number, got None"),
        ({"schedule": "linear"}, "schedule must be 'cosine' or 'constant' or None, got 'linear'"),
        ({"flip": "no"}, "flip must be True or False, got 'no'"),
        ({"grace": 5}, "grace must be a string, got 5"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"epochs": -1}, "epochs must be at least 1, got -1"),
        ({"epochs": 10**23}, f"epochs must be at most 1000000, got {10**23}"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0, got -0.1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive, got nan"),
        (
            {"model": "small", "fine_tune_learning_rate": 0.0, "weights": "a.h5"},
            "fine_tune_learning_rate must be positive, got 0.0",
        ),
        ({"model": "smal"}, "model 'smal' is not known; did you mean small?"),
        (
            {"weights": "imagenet"},
            "weights are of one model, and auto begins with weights of its own; name the --model that they are of",
        ),
        ({"fine_tune": "last"}, "fine_tune is for lite0, lite1, lite2, and the model is auto"),
        (
            {"model": "small", "weights": "imagenet"},
            "there are no ImageNet weights of small; choose one of keras.applications",
        ),
        (
            {"head_epochs": 2},
            "head_epochs is for a model that begins with --weights, and there are none",
        ),
        ({"clip_norm": 0.0}, "clip_norm must be positive, got 0.0"),
        ({"mixup": 1.5}, "mixup must be at most 1, got 1.5"),
        ({"cutmix": -1.0}, "cutmix must be at least 0, got -1.0"),
        ({"early_stopping": 0}, "early_stopping must be at least 1, got 0"),
        ({"steps_per_execution": 0}, "steps_per_execution must be at least 1, got 0"),
        ({"warmup_epochs": -1.0}, "warmup_epochs must be at least 0, got -1.0"),
        ({"label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1, got 1.0"),
        (
            {"save_every": "10"},
            "save_every must be a time or a number of steps such as 10min, 90s or 500steps, got '10'",
        ),
        ({"grace": "soon"}, "grace must be a time such as 30s or 2min, got 'soon'"),
    ],
)
def test_options_are_checked(options, sentence):
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        TrainConfig(data_dir=Path("data"), run=Path("run"), **options)


def test_several_workers_are_found_however_they_are_named(monkeypatch):
    cluster = {"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}
    options = {"data_dir": Path("data"), "run": Path("run"), "max_bad_records": 3}
    TrainConfig(**options)
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(ConfigError, match="--max-bad-records goes with one process only"):
        TrainConfig(**options)
    TrainConfig(**options | {"max_bad_records": 0})


def test_a_dataset_as_the_run_folder_is_said(tmp_path):
    (tmp_path / "metadata.json").write_text("{}")
    sentence = f"--run {tmp_path} is a dataset; meant `shardstream-train {tmp_path} --run RUN`?"
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        TrainConfig(data_dir=Path("runs/first"), run=tmp_path)


def test_numbers_of_numpy_are_numbers():
    config = TrainConfig(
        data_dir=Path("data"),
        run=Path("run"),
        batch_size=np.int64(8),
        learning_rate=np.float32(0.5),
        clip_norm=1,
    )
    assert (config.batch_size, config.learning_rate, config.clip_norm) == (8, 0.5, 1.0)
    assert [type(value) for value in (config.batch_size, config.learning_rate, config.clip_norm)] == [
        int,
        float,
        float,
    ]
