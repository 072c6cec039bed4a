import re
from pathlib import Path

import pytest

from ingest.errors import ConfigError
from predict.config import PredictConfig


def config(**options):
    return PredictConfig(run=Path("runs/a"), data=Path("data"), **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch": 1, "all": True}, "--batch and --all exclude one another; give one of them"),
        ({"sample": 5, "batch": 1}, "--sample and --batch exclude one another; give one of them"),
        (
            {"sample": 5, "batch": 1, "all": True},
            "--sample and --batch and --all exclude one another; give one of them",
        ),
        ({"sample": 0}, "--sample has to be at least 1, got 0"),
        ({"batch": 0}, "--batch has to be at least 1, got 0"),
        ({"gallery": -1}, "--gallery has to be at least 0, got -1"),
        ({"seed": -1}, "--seed has to be at least 0, got -1"),
    ],
)
def test_options_that_cannot_be_used(options, sentence):
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        config(**options)


@pytest.mark.parametrize(
    ("options", "size"),
    [({}, 200), ({"sample": 32}, 32), ({"batch": 1}, None), ({"all": True}, None)],
)
def test_a_sample_of_200_unless_something_else_is_asked_for(options, size):
    assert config(**options).sample_size == size


def test_the_report_goes_into_the_run_unless_it_is_sent_elsewhere():
    assert config().report_dir == Path("runs/a/report")
    assert config(out=Path("x")).report_dir == Path("x")
