import keras
import numpy as np
import pytest

from shardstream.ingest.common.errors import DatasetError
from shardstream.train.engine.features import (
    BATCH_SIZE,
    collect_features,
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
        yield (part, labels, [b"a/%d" % label for label in labels]) if names else (part, labels)


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


def test_names_and_the_number_of_images_of_each_batch(backbone):
    seen = []
    extract = make_extractor(backbone)
    features = collect_features(
        ((extract(batch[0]), batch) for batch in batches_of(drawn(10), 4, names=True)),
        num_examples=10,
        after_batch=seen.append,
    )
    assert features.names == [f"a/{i}" for i in range(10)]
    assert seen == [4, 4, 2]


@pytest.mark.parametrize(
    ("num_examples", "sentence"),
    [(9, "more than the 9 images that there should be"), (11, "found 10 images, expected 11")],
)
def test_each_image_comes_once(backbone, num_examples, sentence):
    with pytest.raises(DatasetError, match=sentence):
        extract_features(batches_of(drawn(10), 4), make_extractor(backbone), num_examples=num_examples)


def test_features_that_are_not_finite(backbone):
    def extract(images):
        values = np.ones((len(images), 4), np.float16)
        values[1:, 2] = np.nan
        return values

    for names, named in ((True, "a/1"), (False, "image number 1")):
        with pytest.raises(DatasetError, match=f"^the features of {named} are not finite$"):
            extract_features(batches_of(drawn(3), 2, names=names), extract, num_examples=3)
