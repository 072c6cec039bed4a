"""The models: pictures [batch, size, size, 3], RGB from 0 to 255, in; probabilities [batch, num_classes] out."""

from collections.abc import Sequence

import keras
from keras import layers

from train.config import ModelName

# Output channels of the stages of `small`; each halves height and width.
_STAGES = (32, 64, 128)
_STEM = 16
# Keras's default of 0.99 suits runs of many thousand steps. Here a run may have 300: the moving averages then
# still hold a part of where they started, and validation accuracy fell from 0.95 to 0.62 (rooms at 128x128,
# 20 epochs of 18 steps).
_BATCH_NORM_MOMENTUM = 0.9


def build_model(
    name: ModelName,
    *,
    image_size: int,
    num_classes: int,
    seed: int,
    augmentation: Sequence[layers.Layer] = (),
    synchronized: bool = False,
) -> keras.Model:
    """Returns the model called `name` in the precision that is set globally.

    Args:
        name: "small" or "seed".
        image_size: Height and width in pixels.
        num_classes: The number of outputs.
        seed: Of the dropout; the weights come from Keras's global seed.
        augmentation: Layers for the pictures that `small` begins with; `seed` has none, as the notebook had.
        synchronized: Whether batch normalisation looks at the whole batch where several replicas share it.
    """
    if name == "seed":
        return _build_seed(image_size, num_classes, seed)
    return _build_small(image_size, num_classes, seed, augmentation, synchronized)


def _build_seed(image_size: int, num_classes: int, seed: int) -> keras.Model:
    """Returns the layers of the notebook that this project grew from, exactly."""
    return keras.Sequential(
        [
            keras.Input((image_size, image_size, 3)),
            layers.Dense(1024, activation="relu"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.25, seed=seed),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.25, seed=seed + 1),
            layers.Flatten(),
            layers.Dense(64, activation="tanh"),
            _classifier(num_classes),
        ],
        name="seed",
    )


def _build_small(
    image_size: int, num_classes: int, seed: int, augmentation: Sequence[layers.Layer], synchronized: bool
) -> keras.Model:
    """Returns a residual network of a stem and three stages (He et al. 2015; the stem and shortcuts of ResNet-D).

    Plain convolutions, not separable ones: at these widths a separable network took twice the time on a CPU,
    as depthwise convolutions wait for memory.
    """
    inputs = keras.Input((image_size, image_size, 3))
    x = inputs
    for layer in augmentation:
        x = layer(x)
    x = layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = layers.ReLU()(_convolution(x, _STEM, 5, strides=2, synchronized=synchronized))
    for channels in _STAGES:
        x = _residual_block(x, channels, synchronized=synchronized)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2, seed=seed + 100)(x)
    return keras.Model(inputs, _classifier(num_classes)(x), name="small")


def _residual_block(x: keras.KerasTensor, channels: int, *, synchronized: bool) -> keras.KerasTensor:
    y = layers.ReLU()(_convolution(x, channels, 3, strides=2, synchronized=synchronized))
    y = _convolution(y, channels, 3, synchronized=synchronized)
    # Pooled before the 1x1 convolution: with strides there, three of four values would be thrown away.
    shortcut = layers.AveragePooling2D(2, padding="same")(x)
    shortcut = _convolution(shortcut, channels, 1, synchronized=synchronized)
    return layers.ReLU()(layers.Add()([shortcut, y]))


def _convolution(
    x: keras.KerasTensor, channels: int, kernel_size: int, *, strides: int = 1, synchronized: bool
) -> keras.KerasTensor:
    convolution = layers.Conv2D(
        channels,
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,  # Batch normalisation brings its own.
        kernel_initializer="he_normal",
    )
    normalization = layers.BatchNormalization(momentum=_BATCH_NORM_MOMENTUM, synchronized=synchronized)
    return normalization(convolution(x))


def _classifier(num_classes: int) -> layers.Layer:
    # float32 under mixed precision too: probabilities near 1 have no room in float16.
    return layers.Dense(num_classes, activation="softmax", dtype="float32", name="probabilities")
