import os

import keras
import numpy as np
import pytest

from shardstream.ingest.common.errors import DatasetError
from shardstream.train.engine.features import (
    BATCH_SIZE,
    THUMBNAIL_SIZE,
    FeatureCache,
    Features,
    extract_features,
    make_extractor,
)

SIZE = 6


@pytest.fixture(scope="module")
def backbone():
    keras.utils.set_random_seed(0)
    images = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(images))
    x = keras.layers.BatchNormalization()(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))


def drawn(count):
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def batches_of(images, batch_size, *, names=False):
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        labels = np.arange(start, start + len(part), dtype=np.int32)
        weights = np.ones(len(part), np.float32)
        yield (
            (part, labels, weights, [b"a/%d" % label for label in labels])
            if names
            else (part, labels, weights)
        )


@pytest.mark.parametrize("batch_size", [1, BATCH_SIZE, BATCH_SIZE + 5, 100])
def test_features_are_those_of_the_model_whatever_the_batches(backbone, batch_size):
    images = drawn(70)
    features = extract_features(
        batches_of(images, batch_size), make_extractor(backbone), num_examples=len(images)
    )
    assert (features.values.dtype, features.values.shape) == (np.float16, (70, 4))
    np.testing.assert_allclose(features.values, backbone.predict(images, verbose=0), rtol=2e-3, atol=1e-4)
    np.testing.assert_array_equal(features.labels, np.arange(70))
    assert features.names is None


def test_names_and_the_number_of_images_so_far(backbone):
    seen = []
    features = extract_features(
        batches_of(drawn(10), 4, names=True),
        make_extractor(backbone),
        num_examples=10,
        after_batch=seen.append,
    )
    assert features.names == [f"a/{i}" for i in range(10)]
    assert seen == [4, 8, 10]


@pytest.mark.parametrize(
    ("num_examples", "sentence"),
    [(9, "more than the 9 images that there should be"), (11, "found 10 images, expected 11")],
)
def test_each_image_comes_once(backbone, num_examples, sentence):
    with pytest.raises(DatasetError, match=sentence):
        extract_features(batches_of(drawn(10), 4), make_extractor(backbone), num_examples=num_examples)


def test_features_that_are_not_finite(backbone):
    def extract(images):
        return np.full((len(images), 4), np.nan, np.float16)

    with pytest.raises(DatasetError, match="are not finite"):
        extract_features(batches_of(drawn(3), 2), extract, num_examples=3)


def features_of(number, *, names=True):
    return Features(
        values=np.full((2, 3), number, np.float16),
        labels=np.array([0, 1], np.int32),
        thumbnails=np.full((2, THUMBNAIL_SIZE**2 * 3), 0.5, np.float16),
        names=["a", "음\udcff"] if names else None,
    )


@pytest.mark.parametrize("names", [True, False])
def test_the_cache_gives_what_was_kept(tmp_path, names):
    cache = FeatureCache(tmp_path / "cache")
    computed = []

    def compute():
        computed.append(1)
        return features_of(7, names=names)

    for _ in range(2):
        found = cache.get({"dataset": "x", "image_size": 32}, compute)
        assert found.names == (["a", "음\udcff"] if names else None)
        np.testing.assert_array_equal(found.values, 7)
        np.testing.assert_array_equal(found.labels, [0, 1])
    assert len(computed) == 1
    cache.get({"dataset": "x", "image_size": 33}, compute)
    assert len(computed) == 2
    assert all(path.name.endswith(".features.npz") for path in (tmp_path / "cache").iterdir())


@pytest.mark.parametrize("content", [b"", b"no archive", "truncated", "others"])
def test_a_file_that_is_damaged_is_computed_again(tmp_path, content, caplog):
    cache = FeatureCache(tmp_path)
    cache.get({}, lambda: features_of(1))
    (path,) = tmp_path.iterdir()
    match content:
        case "truncated":
            path.write_bytes(path.read_bytes()[:-40])
        case "others":
            with path.open("wb") as file:
                np.savez(file, values=np.zeros(3), labels=np.zeros(3, np.int32), names=np.zeros(0, np.uint8))
        case _:
            path.write_bytes(content)
    np.testing.assert_array_equal(cache.get({}, lambda: features_of(2)).values, 2)
    assert str(path) in caplog.text
    np.testing.assert_array_equal(cache.get({}, lambda: features_of(3)).values, 2)


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    found = FeatureCache(tmp_path / "file").get({}, lambda: features_of(1))
    np.testing.assert_array_equal(found.values, 1)
    assert "the features are not kept" in caplog.text


def test_nothing_is_kept_where_nothing_is_asked_for():
    assert FeatureCache(None).get({}, lambda: features_of(5)).values[0, 0] == 5


def test_features_under_the_name_of_others_are_computed_again(tmp_path, caplog):
    cache = FeatureCache(tmp_path)
    cache.get({"dataset": "x"}, lambda: features_of(7))
    (one,) = tmp_path.iterdir()
    cache.get({"dataset": "y"}, lambda: features_of(8))
    (other,) = set(tmp_path.iterdir()) - {one}
    one.replace(other)
    np.testing.assert_array_equal(cache.get({"dataset": "y"}, lambda: features_of(9)).values, 9)
    assert "the features of something else" in caplog.text


def test_a_pipe_in_the_place_of_features_is_not_waited_for(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.get({"dataset": "x"}, lambda: features_of(7))
    (path,) = tmp_path.iterdir()
    path.unlink()
    os.mkfifo(path)
    np.testing.assert_array_equal(cache.get({"dataset": "x"}, lambda: features_of(9)).values, 9)
