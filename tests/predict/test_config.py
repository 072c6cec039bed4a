import re
from pathlib import Path

import pytest

from shardstream.ingest.common.errors import ConfigError
from shardstream.predict.config import PredictConfig


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
        (
            {"all": True, "sampling": "worst"},
            "--all draws nothing, so --sampling worst has no effect; leave one out",
        ),
        (
            {"batch": 2, "sampling": "stratified"},
            "--batch draws nothing, so --sampling stratified has no effect; leave one out",
        ),
        ({"seed": -1}, "--seed has to be at least 0, got -1"),
        ({"compare": (Path("runs/b/../a"),)}, "--compare runs/b/../a: given twice; name each run once"),
    ],
)
def test_options_that_cannot_be_used(options, sentence):
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        config(**options)


def test_a_sample_of_200_unless_something_else_is_asked_for():
    assert config().sample_size == 200
    assert config(sample=32).sample_size == 32


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, 200),
        ({"all": True, "gallery": 50}, 50),
        ({"sample": 32}, 200),
        ({"sample": 32, "sampling": "worst"}, 32),  # Of all that are predicted, these are shown.
        ({"sample": 32, "sampling": "borderline", "gallery": 10}, 10),
    ],
)
def test_how_many_pictures_the_page_has(options, size):
    assert config(**options).gallery_size == size


def test_the_report_goes_into_the_run_unless_it_is_sent_elsewhere():
    assert config().report_dir == Path("runs/a/report")
    assert config(out=Path("x")).report_dir == Path("x")
    assert config(labelled=True).report_dir == Path("runs/a/labelled-report")  # Beside that of the dataset.


def test_swapped_run_and_data_are_said(tmp_path):
    run, data = tmp_path / "run", tmp_path / "data"
    for path in (run / "model.json", data / "metadata.json", data / "d-train.tfrecord-00000-of-00001"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    sentence = (
        f"{data} is a dataset and {run} is a run; the run comes first: shardstream-predict {run} {data}"
    )
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        PredictConfig(run=data, data=run)
    PredictConfig(run=run, data=data)
    with pytest.raises(ConfigError, match=f"--labelled is for folders of images, and {data} is a dataset"):
        PredictConfig(run=run, data=data, labelled=True)
