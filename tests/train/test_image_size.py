"""The size that a model sees by default, where the stored images were enlarged."""

import dataclasses

import pytest

from shardstream.ingest.images.settings import ImageSettings
from shardstream.train.config import TrainConfig
from shardstream.train.resolve import prepare

STORED = 48


@pytest.fixture(scope="module")
def enlarge(make_dataset):
    """Returns the folder of a dataset whose largest source image is of so many pixels."""
    info = make_dataset(image=ImageSettings(size=STORED, resize="stretch", encoding="raw", quality=95))

    def enlarge(side):
        dataclasses.replace(info, largest_source_side=side).save(info.data_dir)
        return info.data_dir

    return enlarge


@pytest.mark.parametrize(
    ("side", "expected"), [(40, 40), (10, 32), (STORED, STORED), (5000, STORED), (None, STORED)]
)
def test_small_sees_no_more_pixels_than_the_largest_source_image(enlarge, tmp_path, side, expected):
    setup = prepare(TrainConfig(data_dir=enlarge(side), run=tmp_path / "run", model="small"))
    assert setup.image_size == setup.describe()["image_size"] == expected


def test_each_candidate_has_a_size_of_its_own(enlarge, tmp_path):
    setup = prepare(TrainConfig(data_dir=enlarge(40), run=tmp_path / "run"))
    assert (setup.image_size, setup.frozen.image_size) == (40, STORED)


def test_beside_a_backbone_small_sees_at_most_96_pixels(make_dataset, tmp_path):
    info = make_dataset(image=ImageSettings(size=120, resize="stretch", encoding="raw", quality=95))
    setup = prepare(TrainConfig(data_dir=info.data_dir, run=tmp_path / "run"))
    assert (setup.image_size, setup.frozen.image_size) == (96, 120)
    alone = prepare(TrainConfig(data_dir=info.data_dir, run=tmp_path / "run", model="small"))
    assert alone.image_size == 120
    chosen = prepare(TrainConfig(data_dir=info.data_dir, run=tmp_path / "run", image_size=110))
    assert (chosen.image_size, chosen.frozen.image_size) == (110, 110)


@pytest.mark.parametrize("options", [{"model": "notebook"}, {"model": "lite0"}, {"image_size": STORED}])
def test_other_models_and_chosen_sizes_are_kept(enlarge, tmp_path, options):
    setup = prepare(TrainConfig(data_dir=enlarge(40), run=tmp_path / "run", **options))
    assert setup.image_size == STORED
