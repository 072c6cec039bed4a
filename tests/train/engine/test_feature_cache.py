import os

import numpy as np
import pytest

from shardstream.train.engine.feature_cache import FeatureCache
from shardstream.train.engine.features import THUMBNAIL_SIZE, Features


def features_of(number, *, names=True):
    return Features(
        values=np.full((2, 3), number, np.float16),
        labels=np.array([0, 1], np.int32),
        thumbnails=np.full((2, THUMBNAIL_SIZE**2 * 3), 0.5, np.float16),
        names=["a", "음\udcff"] if names else None,
    )


@pytest.fixture
def kept(tmp_path):
    """A cache with one file, and the file."""
    cache = FeatureCache(tmp_path / "cache")
    assert cache.save({"dataset": "x"}, features_of(7))
    (path,) = (tmp_path / "cache").iterdir()
    return cache, path


@pytest.mark.parametrize("names", [True, False])
def test_the_cache_gives_what_was_kept(tmp_path, names):
    cache = FeatureCache(tmp_path / "cache")
    identity = {"dataset": "x", "block": 0}
    assert cache.load(identity, num_examples=2) is None
    assert cache.save(identity, features_of(7, names=names))
    found = cache.load(identity, num_examples=2)
    assert found.names == (["a", "음\udcff"] if names else None)
    np.testing.assert_array_equal(found.values, 7)
    np.testing.assert_array_equal(found.labels, [0, 1])
    assert cache.load({**identity, "block": 1}, num_examples=2) is None
    assert all(path.name.endswith(".features.npz") for path in (tmp_path / "cache").iterdir())


@pytest.mark.parametrize("content", [b"", b"no archive", "truncated", "others"])
def test_a_file_that_is_damaged_is_not_used(kept, content, caplog):
    cache, path = kept
    match content:
        case "truncated":
            path.write_bytes(path.read_bytes()[:-40])
        case "others":
            with path.open("wb") as file:
                np.savez(file, values=np.zeros(3), labels=np.zeros(3, np.int32), names=np.zeros(0, np.uint8))
        case _:
            path.write_bytes(content)
    assert cache.load({"dataset": "x"}, num_examples=2) is None
    assert str(path) in caplog.text
    assert cache.save({"dataset": "x"}, features_of(2))
    np.testing.assert_array_equal(cache.load({"dataset": "x"}, num_examples=2).values, 2)


def test_features_of_more_or_fewer_images_are_not_used(kept, caplog):
    cache, path = kept
    assert cache.load({"dataset": "x"}, num_examples=3) is None
    assert f"{path}: not these features" in caplog.text


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert not FeatureCache(tmp_path / "file").save({}, features_of(1))
    assert "the features are not kept" in caplog.text


def test_nothing_is_kept_where_nothing_is_asked_for():
    assert not FeatureCache(None).save({}, features_of(5))
    assert FeatureCache(None).load({}, num_examples=2) is None


def test_features_under_the_name_of_others_are_not_used(kept, caplog):
    cache, one = kept
    cache.save({"dataset": "y"}, features_of(8))
    (other,) = set(one.parent.iterdir()) - {one}
    one.replace(other)
    assert cache.load({"dataset": "y"}, num_examples=2) is None
    assert "not these features" in caplog.text


def test_a_pipe_in_the_place_of_features_is_not_waited_for(kept):
    cache, path = kept
    path.unlink()
    os.mkfifo(path)
    assert cache.load({"dataset": "x"}, num_examples=2) is None
