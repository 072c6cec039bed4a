import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from shardstream.train.models.inference import inference_function
from shardstream.train.models.portable_resize import with_portable_resize


def make_model(height, width, *, antialias=True):
    images = keras.Input((30, 20, 3))
    resized = layers.Resizing(height, width, antialias=antialias)(images)
    features = layers.Conv2D(4, 3)(resized)
    return keras.Model(images, layers.GlobalAveragePooling2D()(features))


IMAGES = np.random.default_rng(0).integers(0, 256, (2, 30, 20, 3)).astype(np.float32)


@pytest.mark.parametrize(("height", "width"), [(22, 15), (7, 9), (30, 20), (45, 31), (10, 40)])
def test_the_output_is_that_of_the_layer(height, width):
    model = make_model(height, width)
    expected = model.predict_on_batch(IMAGES)
    found = with_portable_resize(model).predict_on_batch(IMAGES)
    # Pixels go up to 255: a ten-thousandth of a level.
    np.testing.assert_allclose(found, expected, atol=1e-3, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning")
def test_tflite_runs_it(tmp_path):
    model = make_model(22, 15)
    copy = with_portable_resize(model)
    function = tf.function(
        inference_function(copy), input_signature=[tf.TensorSpec([None, 30, 20, 3], tf.float32)]
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], copy)
    path = tmp_path / "model.tflite"
    path.write_bytes(converter.convert())
    interpreter = tf.lite.Interpreter(str(path))
    (given,), (taken,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], IMAGES.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], IMAGES)
    interpreter.invoke()
    found = interpreter.get_tensor(taken["index"])
    np.testing.assert_allclose(found, model.predict_on_batch(IMAGES), atol=1e-3, rtol=1e-5)


def test_other_models_are_returned_as_they_are():
    model = make_model(22, 15, antialias=False)
    assert with_portable_resize(model) is model
