from pathlib import Path

import keras
import numpy as np
import pytest

from shardstream.ingest.common.errors import DatasetError
from shardstream.train.models.efficientnet_lite import (
    EMBEDDING_SIZE,
    FEATURES,
    build_backbone,
    load_backbone,
)
from shardstream.train.models.pretrained import load_pretrained
from shardstream.train.runs.model_check import check_model_file

REFERENCE = Path(__file__).parents[4] / "shared" / "data" / "lite0_reference.npz"


def make_backbone(variant: str, size: int, image_size: int) -> keras.Model:
    images = keras.Input((size, size, 3))
    return keras.Model(images, build_backbone(variant, images, image_size=image_size))


@pytest.fixture(scope="module")
def tensors():
    return load_pretrained("lite0")


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference outputs are not on this machine")
def test_features_and_logits_agree_with_the_pytorch_implementation(tensors):
    model = make_backbone("lite0", 224, 224)
    load_backbone(model, "lite0", tensors)
    kernel, bias = tensors["_fc.weight"].T, tensors["_fc.bias"]
    with np.load(REFERENCE) as reference:
        features = model.predict(reference["images"], verbose=0)[:, :EMBEDDING_SIZE]
        np.testing.assert_allclose(features, reference["features"], atol=1e-4, rtol=0)
        np.testing.assert_allclose(features @ kernel + bias, reference["logits"], atol=1e-4, rtol=0)


# The published sizes are 4.7, 5.4 and 6.1 million with the 1.281 million of the classifier.
@pytest.mark.parametrize(
    ("variant", "num_parameters", "num_features"),
    [("lite0", 3_413_024, 2048), ("lite1", 4_189_344, 2048), ("lite2", 4_869_168, 2112)],
)
def test_sizes_of_the_variants(variant, num_parameters, num_features):
    model = make_backbone(variant, 64, 64)
    assert model.count_params() == num_parameters
    assert model.get_layer(FEATURES).output.shape == (None, num_features)


@pytest.mark.parametrize("image_size", [64, 224, 240, 260])
def test_features_after_the_embedding_are_means_of_quadrants(tensors, image_size):
    model = make_backbone("lite0", image_size, image_size)
    load_backbone(model, "lite0", tensors)
    maps = keras.Model(model.input, model.get_layer("stage5_block3_add").output)
    images = np.random.default_rng(0).integers(0, 256, (1, image_size, image_size, 3), np.uint8)
    found = maps.predict(images, verbose=0)[0]
    half = -(-len(found) // 2)
    quadrants = [found[rows, columns] for rows in _halves(half) for columns in _halves(half)]
    expected = np.concatenate([quadrant.mean(axis=(0, 1)) for quadrant in quadrants])
    features = model.predict(images, verbose=0)[0]
    np.testing.assert_allclose(features[EMBEDDING_SIZE:], expected, atol=1e-5)


def _halves(half):
    return slice(None, half), slice(-half, None)


def test_images_of_another_size_are_resized_inside_the_model(tensors, tmp_path):
    model = make_backbone("lite0", 50, 64)
    load_backbone(model, "lite0", tensors)
    images = np.random.default_rng(0).integers(0, 256, (2, 50, 50, 3), np.uint8)
    resized = keras.layers.Resizing(64, 64, antialias=True)(images.astype(np.float32))
    same_size = make_backbone("lite0", 64, 64)
    load_backbone(same_size, "lite0", tensors)
    features = model.predict(images, verbose=0)
    np.testing.assert_allclose(features, same_size.predict(resized, verbose=0), atol=1e-4)
    model.save(tmp_path / "a.keras")
    check_model_file(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras", compile=False, safe_mode=True)
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), features)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("_conv_head.weight", None, "the file of weights has no tensor '_conv_head.weight'"),
        ("_conv_stem.weight", np.zeros(3), "the tensor '_conv_stem' has 1 dimensions, expected 4"),
        ("_conv_stem.weight", np.zeros((8, 3, 3, 3)), "layer 'stem' needs"),
    ],
)
def test_other_tensors_are_refused(tensors, name, value, reason):
    changed = {key: array for key, array in tensors.items() if key != name}
    if value is not None:
        changed[name] = value
    with pytest.raises(DatasetError, match=reason):
        load_backbone(make_backbone("lite0", 32, 32), "lite0", changed)
