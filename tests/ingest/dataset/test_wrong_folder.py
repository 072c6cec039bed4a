"""What is said of a folder that is given in the place of another."""

import re

import pytest

from shardstream.ingest.commands.config import RepairConfig, UpdateConfig
from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.wrong_folder import explain_missing_run


@pytest.fixture
def folders(tmp_path):
    for name in ("photos/cat/1.jpg", "data/metadata.json", "data/d-train.tfrecord-00000-of-00001"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize("config_class", [UpdateConfig, RepairConfig])
def test_swapped_arguments_are_named(folders, config_class):
    images, data = folders / "photos", folders / "data"
    sentence = (
        f"IMAGES ({data}) is already a dataset folder, expected source images; swap them: {images} {data}"
    )
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        config_class(images=data, data=images)
    with pytest.raises(ConfigError, match="train from it with `shardstream-train"):
        config_class(images=data, data=folders / "nowhere")
    config_class(images=images, data=data)
    (images / "metadata.json").touch()  # A file of the user that happens to have the name.
    config_class(images=images, data=data)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("photos", "holds images, expected a run folder"),
        ("data", "a dataset folder, expected a run folder"),
        ("nowhere", "no such run folder; make one with `shardstream-train DATA --run "),
        ("dat", "no such run folder; did you mean {folders}/data?"),
        ("photos/cat/1.jpg", "no config.json and no model.json in it"),
    ],
)
def test_what_was_given_as_a_run_is_named(folders, name, found):
    assert explain_missing_run(folders / name).startswith(
        f"{folders / name}: {found.format(folders=folders)}"
    )


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("dta", "no such folder; did you mean {folders}/data?"),
        (
            "flowers_of_2026",
            "no such folder; make it with `shardstream-ingest build IMAGES {folders}/flowers_of_2026`",
        ),
        (
            "nowhere/dta",
            "no such folder; make it with `shardstream-ingest build IMAGES {folders}/nowhere/dta`",
        ),
    ],
)
def test_a_mistyped_dataset_is_answered_with_the_nearest_name(folders, name, sentence):
    (folders / "flowers_of_2026.incomplete").mkdir()  # What a build was stopped at.
    (folders / "flowers_of_2026.zip").touch()
    with pytest.raises(DatasetError, match=re.escape(sentence.format(folders=folders)) + "$"):
        DatasetInfo.load(folders / name)
