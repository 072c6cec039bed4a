"""The most similar training images are those of a plain search, and none is its own neighbor."""

from types import SimpleNamespace

import numpy as np
import pytest

from shardstream.predict.findings import neighbors as module
from shardstream.predict.findings.neighbors import find_neighbors
from shardstream.predict.inference.backbone_features import DatasetFeatures
from shardstream.predict.inference.thumbnails import Picture

TRAINING = SimpleNamespace(class_names=("a", "b"))


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    train = SimpleNamespace(
        values=rng.normal(size=(1000, 16)).astype(np.float16),
        labels=rng.integers(0, 2, 1000).astype(np.int32),
        names=[f"{i}.jpg" for i in range(1000)],
    )
    return DatasetFeatures({"train": train})


@pytest.fixture(autouse=True)
def _no_records(monkeypatch):
    """Thumbnails of 1,000 bytes each."""
    picture = Picture("image/webp", b"x" * 1000, is_record=False)
    monkeypatch.setattr(module, "load_thumbnails", lambda _, entries, **__: dict.fromkeys(entries, picture))


@pytest.mark.parametrize("block", [1, 7, 4096])
def test_they_are_those_of_a_plain_search(features, monkeypatch, block):
    monkeypatch.setattr(module, "_BLOCK_ROWS", block)
    queries = features.unit_vectors("train", np.array([3, 500])) + np.float32(0.01)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    found = find_neighbors(features, TRAINING, queries, np.array([7, 9]), model=None)
    similarities = queries @ features.unit_vectors("train").T
    for row, of_query in zip((7, 9), similarities, strict=True):
        best = np.argsort(-of_query)[:3]
        assert [one.entry.position for one in found.of_row[row]] == best.tolist()
        assert [one.entry.path for one in found.of_row[row]] == [f"{i}.jpg" for i in best]
        assert [one.label for one in found.of_row[row]] == features.splits["train"].labels[best].tolist()
        assert [one.similarity for one in found.of_row[row]] == pytest.approx(of_query[best], abs=1e-5)


def test_no_image_is_its_own_neighbor(features):
    positions = np.array([3, 500])
    queries = features.unit_vectors("train", positions)
    found = find_neighbors(features, TRAINING, queries, positions, model=None, own_positions=positions)
    for position in positions.tolist():
        assert position not in [one.entry.position for one in found.of_row[position]]
        assert len(found.of_row[position]) == 3


def test_of_more_images_than_the_page_has_room_for_the_first_have_thumbnails(features, monkeypatch):
    monkeypatch.setattr(module, "_MAX_BYTES", 4500)
    queries = features.unit_vectors("train", np.arange(5))
    found = find_neighbors(features, TRAINING, queries, np.arange(5), model=None)
    assert len(found.thumbnails) == 4
    assert len(found.of_row) == 5


def test_of_too_many_training_images_some_are_looked_at(features, monkeypatch):
    monkeypatch.setattr(module, "_MAX_TRAINING_IMAGES", 2)
    found = find_neighbors(
        features, TRAINING, features.unit_vectors("train", np.arange(4)), np.arange(4), model=None
    )
    assert len({one.entry.position for of_row in found.of_row.values() for one in of_row}) == 2
