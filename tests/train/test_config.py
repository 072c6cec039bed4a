import re
from pathlib import Path

import pytest

from ingest.errors import ConfigError
from train.config import TrainConfig


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"image_size": 0}, "image_size must be at least 1, got 0"),
        ({"image_size": 4}, "image_size must be at least 8, got 4"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"epochs": -1}, "epochs must be at least 1, got -1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0, got -0.1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive, got nan"),
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
