"""When features are there, computed or not: what they are is tested with the backbone."""

import logging

import numpy as np
import pytest

from shardstream.ingest.common.errors import ConfigError
from shardstream.predict.inference import backbone_features
from shardstream.predict.inference.backbone_features import load_features

WIDTH = 4


@pytest.fixture
def info(write_dataset, trial, monkeypatch, tmp_path):
    """A dataset of two splits whose features are the mean colors, cached in a folder of its own."""
    monkeypatch.setattr(backbone_features, "MIN_BACKBONE_SIZE", 8)
    monkeypatch.setattr(backbone_features, "default_cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(backbone_features, "build_pretrained_backbone", lambda name, image_size: None)
    monkeypatch.setattr(backbone_features, "make_extractor", lambda _: _mean_colors)
    return write_dataset(tmp_path / "data", {"train": [trial.photos[:40]], "validation": [trial.photos[40:]]})


def _mean_colors(images):
    return np.pad(images.mean(axis=(1, 2)), [(0, 0), (0, WIDTH - 3)]).astype(np.float16)


def test_every_image_of_every_split_has_its_features(info, trial):
    features = load_features(info)
    assert features.num_images == 81
    assert list(features.splits) == ["train", "validation"]
    assert features.splits["train"].names == [photo.path for photo in trial.photos[:40]]
    assert features.splits["validation"].labels.tolist() == [photo.label for photo in trial.photos[40:]]
    vectors = features.unit_vectors("validation", np.array([3]))
    assert np.linalg.norm(vectors) == pytest.approx(1, abs=1e-4)
    assert int(vectors[0].argmax()) == trial.photos[43].looks_like


def test_of_many_images_features_are_only_taken_from_the_cache(info, monkeypatch, caplog):
    monkeypatch.setattr(backbone_features, "_MAX_COMPUTED", 80)
    with caplog.at_level(logging.INFO):
        assert load_features(info) is None
    assert "too many images (81)" in caplog.text
    monkeypatch.setattr(backbone_features, "_MAX_COMPUTED", 81)
    load_features(info)
    monkeypatch.setattr(backbone_features, "_MAX_COMPUTED", 80)
    monkeypatch.setattr(backbone_features, "make_extractor", lambda _: 1 / 0)
    assert load_features(info).num_images == 81
    monkeypatch.setattr(backbone_features, "MAX_IMAGES", 80)
    assert load_features(info) is None


def test_without_weights_or_with_small_images_a_report_does_without(info, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(backbone_features, "MIN_BACKBONE_SIZE", 9)
    assert load_features(info) is None
    assert "images of 8 pixels are too small" in caplog.text
    monkeypatch.setattr(backbone_features, "MIN_BACKBONE_SIZE", 8)

    def altered(*_, **__):
        raise ConfigError("not the file that was published")

    monkeypatch.setattr(backbone_features, "build_pretrained_backbone", altered)
    assert load_features(info) is None
    assert "not the file that was published" in caplog.text
    monkeypatch.setattr(backbone_features, "find_weights_file", altered)
    assert load_features(info) is None


def test_a_split_whose_shards_are_elsewhere_is_left_out(info, caplog):
    for shard in info.split("train").shards:
        (info.data_dir / shard.filename).unlink()
    assert list(load_features(info).splits) == ["validation"]
    assert "findings do without the images of split 'train'" in caplog.text
