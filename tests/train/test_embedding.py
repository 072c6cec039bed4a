import io
import os
from pathlib import Path

import keras
import numpy as np
import PIL.Image
import pytest

from shardstream.ingest.common.errors import DatasetError
from shardstream.train.embedding import embed
from shardstream.train.models.build import CLASSIFIER, build_model
from shardstream.train.runs import saved_model
from shardstream.train.runs.saved_model import ModelInfo

REFERENCE = Path(__file__).parents[3] / "shared" / "data" / "lite0_reference.npz"


def drawn(count=3, size=40):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference outputs are not on this machine")
def test_images_of_the_size_of_the_backbone_are_seen_as_they_are():
    with np.load(REFERENCE) as reference:
        features = embed("lite0", reference["images"])
        np.testing.assert_allclose(features, reference["features"], atol=2e-3, rtol=1e-3)


def test_paths_bytes_and_arrays_give_the_same(tmp_path):
    arrays = drawn()
    files = []
    for array in arrays:
        file = io.BytesIO()
        PIL.Image.fromarray(array).save(file, "PNG")
        files.append(file.getvalue())
    path = tmp_path / "a.png"
    path.write_bytes(files[1])
    features = embed("lite0", [files[0], path, arrays[2], str(path)])
    assert (features.dtype, features.shape) == (np.float32, (4, 1280))
    expected = embed("lite0", list(arrays))
    np.testing.assert_array_equal(features[:3], expected)
    np.testing.assert_array_equal(features[3], expected[1])
    assert embed("lite0", []).shape == (0, 1280)


@pytest.fixture
def run(tmp_path):
    info = ModelInfo(
        class_names=("a", "b", "c"),
        display_names=("a", "b", "c"),
        image_size=24,
        resize="stretch",
        stored_size=24,
        encoding="png",
        quality=95,
        model="small",
        dataset_fingerprint="",
        num_parameters=1,
        precision="float32",
        versions={},
    )
    model = build_model("small", image_size=24, num_classes=3, seed=0)
    model.save(tmp_path / "best.keras")
    info.save(tmp_path)
    return tmp_path


def test_the_features_of_a_run_are_what_its_last_layer_sees(run):
    images = drawn(size=24)
    features = embed(run, list(images))
    model = saved_model.load_model(run)[0]
    seen = keras.Model(model.inputs, model.get_layer(CLASSIFIER).input).predict(images, verbose=0)
    np.testing.assert_allclose(features, seen, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (b"no image", "image number 0: "),
        (Path("/no/such.jpg"), "/no/such.jpg: cannot be read (No such file or directory)"),
        (np.zeros((4, 4), np.uint8), "image number 0: uint8 (4, 4), expected uint8 [height, width, 3]"),
    ],
)
def test_images_that_cannot_be_used_are_named(run, image, sentence):
    with pytest.raises(DatasetError) as raised:
        embed(run, [image])
    assert str(raised.value).startswith(sentence)


def test_a_run_that_is_not_there(tmp_path):
    with pytest.raises(DatasetError, match="no such run folder"):
        embed(tmp_path / "none", [])


def test_a_pipe_is_not_waited_for(run, tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(DatasetError, match=r"a\.jpg: cannot be read \(not a regular file\)"):
        embed(run, [tmp_path / "a.jpg"])


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("of_mine", 0.5, "has no layer 'probabilities', so its feature layer is unknown"),
        (CLASSIFIER, np.nan, "are not finite"),
    ],
)
def test_a_model_without_features(run, name, value, sentence):
    inputs = keras.Input((24, 24, 3))
    features = keras.layers.Dense(2, kernel_initializer=keras.initializers.Constant(value))(
        keras.layers.Flatten()(inputs)
    )
    keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name=name)(features)).save(
        run / "best.keras"
    )
    with pytest.raises(DatasetError, match=sentence):
        embed(run, drawn(size=24))
