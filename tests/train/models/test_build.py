import keras
import numpy as np
import pytest

from shardstream.train.distributed.strategy import precision_scope, set_seed
from shardstream.train.models import build as models
from shardstream.train.models.build import build_model
from shardstream.train.models.registry import APPLICATIONS

# Kind, output shape without the batch, parameters. At 16x16 with 3 classes.
SEED_LAYERS = [
    ("Dense", (16, 16, 1024), 3 * 1024 + 1024),
    ("Rescaling", (16, 16, 1024), 0),
    ("Conv2D", (16, 16, 64), 3 * 3 * 1024 * 64 + 64),
    ("MaxPooling2D", (8, 8, 64), 0),
    ("Dropout", (8, 8, 64), 0),
    ("Conv2D", (8, 8, 32), 3 * 3 * 64 * 32 + 32),
    ("MaxPooling2D", (4, 4, 32), 0),
    ("Dropout", (4, 4, 32), 0),
    ("Flatten", (512,), 0),
    ("Dense", (64,), 512 * 64 + 64),
    ("Dense", (3,), 64 * 3 + 3),
]


def test_seed_is_the_notebooks_model_layer_by_layer():
    model = build_model("seed", image_size=16, num_classes=3, seed=0)
    found = [
        (type(layer).__name__, tuple(layer.output.shape[1:]), layer.count_params()) for layer in model.layers
    ]
    assert found == SEED_LAYERS
    dense, rescaling, conv1, pool1, drop1, conv2, pool2, drop2, _, hidden, output = model.layers
    assert [layer.activation.__name__ for layer in (dense, conv1, conv2, hidden, output)] == [
        "relu",
        "relu",
        "relu",
        "tanh",
        "softmax",
    ]
    assert (rescaling.scale, rescaling.offset) == (pytest.approx(1 / 255), 0)
    assert {layer.padding for layer in (conv1, conv2)} == {"same"}
    assert {layer.kernel_size for layer in (conv1, conv2)} == {(3, 3)}
    assert {layer.pool_size for layer in (pool1, pool2)} == {(2, 2)}
    assert {layer.rate for layer in (drop1, drop2)} == {0.25}


def multiplications(model: keras.Model) -> int:
    """Multiply-adds of the convolutions and dense layers for one picture."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            outputs = int(np.prod(layer.output.shape[1:]))
            total += outputs * int(np.prod(layer.kernel.shape[:-1]))
    return total


def test_the_costs_that_help_speaks_of():
    """2 operations for a multiply-add; the weights of the model at 300x300 fit into any memory."""
    seed = build_model("seed", image_size=300, num_classes=3, seed=0)
    assert 2 * multiplications(seed) / 1e9 == pytest.approx(107.6, abs=0.1)
    after_first = seed.layers[2]
    assert 2 * 300 * 300 * 64 * int(np.prod(after_first.kernel.shape[:-1])) / 1e9 == pytest.approx(
        106.2, abs=0.1
    )
    small = build_model("small", image_size=300, num_classes=3, seed=0)
    assert 2 * multiplications(small) / 1e9 == pytest.approx(SMALL_GFLOP, abs=0.05)


SMALL_GFLOP = 0.5


@pytest.mark.parametrize("image_size", [8, 64, 75, 300])
def test_small_takes_any_size_with_the_same_weights(image_size):
    model = build_model("small", image_size=image_size, num_classes=5, seed=0)
    assert model.output_shape == (None, 5)
    assert model.count_params() < 1_000_000
    assert model.count_params() == build_model("small", image_size=16, num_classes=5, seed=0).count_params()


def test_small_gives_the_same_for_a_size_that_was_not_fixed():
    set_seed(1)
    free = build_model("small", image_size=None, num_classes=3, seed=1)
    fixed = build_model("small", image_size=32, num_classes=3, seed=1)
    fixed.set_weights(free.get_weights())
    np.testing.assert_array_equal(np.asarray(free(PICTURES)), np.asarray(fixed(PICTURES)))
    assert free(PICTURES[:, :20, :20]).shape == (8, 3)


@pytest.fixture(scope="module")
def small():
    set_seed(1)
    return build_model("small", image_size=32, num_classes=3, seed=1)


def first_values(pixels: np.ndarray, module) -> np.ndarray:
    return np.asarray(module.preprocess_input(pixels.astype(np.float32).copy()))


@pytest.mark.parametrize("name", ["ResNet50", "DenseNet121", "Xception", "EfficientNetV2B0", "ConvNeXtTiny"])
def test_an_application_has_its_own_preprocessing_inside(monkeypatch, tmp_path, name):
    """Raw pixels in, of uint8 or float32, in a file that loads in safe mode; what comes after is Keras's business."""

    def corner(*_, image_size, **__):
        inputs = keras.Input((image_size, image_size, 3))
        return keras.Model(
            inputs, keras.layers.Flatten()(keras.layers.Cropping2D(((0, 31), (0, 31)))(inputs))
        )

    monkeypatch.setattr(models, "build_application", corner)
    model = build_model(name, image_size=32, num_classes=3, seed=0)
    features = keras.Model(model.input, model.get_layer("probabilities").input)
    features.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras", compile=False, safe_mode=True)
    expected = first_values(PICTURES, getattr(keras.applications, APPLICATIONS[name].module))[:, 0, 0, :]
    for pictures in (PICTURES, PICTURES.astype(np.float32)):
        np.testing.assert_allclose(np.asarray(loaded(pictures)), expected, rtol=1e-6)


def test_batch_normalisation_of_an_application_is_synchronised_where_it_has_to_be():
    model = build_model("MobileNetV2", image_size=32, num_classes=3, seed=0, synchronized=True)
    (backbone,) = (layer for layer in model.layers if isinstance(layer, keras.Model))
    found = {
        layer.synchronized for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)
    }
    assert found == {True}


PICTURES = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)


def test_inference_is_fixed_and_the_same_for_uint8_and_float32(small):
    first = np.asarray(small(PICTURES))
    assert first.dtype == np.float32
    np.testing.assert_allclose(first.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(first, np.asarray(small(PICTURES)))
    np.testing.assert_array_equal(first, np.asarray(small(PICTURES.astype(np.float32))))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", ["small", "notebook"])
def test_mixed_precision_keeps_variables_and_probabilities_in_float32(policy, name):
    with precision_scope(policy):
        model = build_model(name, image_size=16, num_classes=3, seed=0)
    assert {variable.dtype for variable in model.weights} == {"float32"}
    assert {layer.compute_dtype for layer in model.layers if isinstance(layer, keras.layers.Conv2D)} == {
        policy.removeprefix("mixed_")
    }
    assert model.outputs[0].dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"
