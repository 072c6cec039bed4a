"""Antialiased resizing as two matrix products: TFLite and ONNX have no operation for it."""

from typing import Any

import keras
import numpy as np
from keras import layers, ops


def with_portable_resize(model: keras.Model) -> keras.Model:
    """Returns `model`, or a copy in which antialiased `Resizing` layers are matrix products.

    The copy has the same weights and the same output up to rounding. It is for export, not for saving: Keras cannot
    deserialize its layers.
    """
    if not any(isinstance(layer, layers.Resizing) and layer.antialias for layer in model.layers):
        return model
    copy = keras.models.clone_model(model, clone_function=_replace)
    copy.set_weights(model.get_weights())
    return copy


def _replace(layer: Any) -> Any:
    if not (isinstance(layer, layers.Resizing) and layer.antialias):
        return layer.__class__.from_config(layer.get_config())
    return _MatrixResize(layer)


class _MatrixResize(layers.Layer):
    """Resizes float32 images [batch, height, width, channels]; antialiased resizing is linear and separable."""

    def __init__(self, resizing: Any) -> None:
        super().__init__(name=resizing.name)
        self._resizing = resizing

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], self._resizing.height, self._resizing.width, input_shape[3])

    def call(self, images: Any) -> Any:
        _, height, width, _ = images.shape
        rows = _resize_matrix(height, self._resizing.height, self._resizing.interpolation)
        columns = _resize_matrix(width, self._resizing.width, self._resizing.interpolation)
        # 1x1 convolutions over transposed axes, not einsum, which is incorrect in TFLite for batches of unknown size.
        by_width = ops.transpose(
            ops.cast(images, "float32"), (0, 1, 3, 2)
        )  # [batch, height, channels, width]
        narrower = ops.conv(by_width, columns.T[np.newaxis, np.newaxis], data_format="channels_last")
        by_height = ops.transpose(narrower, (0, 3, 2, 1))  # [batch, new width, channels, height]
        shorter = ops.conv(by_height, rows.T[np.newaxis, np.newaxis], data_format="channels_last")
        return ops.transpose(shorter, (0, 3, 1, 2))


def _resize_matrix(size: int, new_size: int, interpolation: str) -> np.ndarray:
    """Returns float32 [new_size, size], the matrix that resizes a column of pixels: a resized identity matrix."""
    import tensorflow as tf

    identity = np.eye(size, dtype=np.float32)[..., np.newaxis]
    with tf.init_scope():
        resized = tf.image.resize(identity, (new_size, size), method=interpolation, antialias=True)
        return resized.numpy()[..., 0]
