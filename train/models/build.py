"""The models: images [batch, size, size, 3], RGB from 0 to 255, to probabilities [batch, num_classes]."""

from typing import Any

import keras
from keras import layers

from shardstream.train.models.efficientnet_lite import build_backbone, load_backbone
from shardstream.train.models.pretrained import load_pretrained
from shardstream.train.models.registry import APPLICATIONS, BACKBONES, Application, backbone_size

# Output channels of the stages of `small`; each halves height and width.
_STAGES = (32, 64, 128)
_STEM = 16
# Keras's default of 0.99 suits runs of many thousand steps. Here a run may have 300: the moving averages then still
# contain part of their initial values, and validation accuracy fell from 0.95 to 0.62 (rooms at 128x128, 20 epochs of
# 18 steps).
_BATCH_NORM_MOMENTUM = 0.9
# Normalization of ImageNet weights, for images from 0 to 1.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STDDEV = (0.229, 0.224, 0.225)
# The last layer of every model.
CLASSIFIER = "probabilities"


def build_model(
    name: str,
    *,
    image_size: int | None,
    num_classes: int,
    seed: int,
    synchronized: bool = False,
) -> keras.Model:
    """Returns the model called `name` in the global precision policy.

    Args:
        name: "small", "notebook", one of `BACKBONES` or of `APPLICATIONS`.
        image_size: Height and width in pixels; None for any size, which only `small` supports.
        num_classes: Number of outputs.
        seed: Seed of the dropout; the weights use Keras's global seed.
        synchronized: Whether batch normalization uses statistics of the global batch when several replicas share it.
    """
    if name == "notebook":
        return _build_notebook(image_size, num_classes, seed)
    inputs: Any = keras.Input((image_size, image_size, 3))
    if name == "small":
        x = _small_features(inputs, synchronized=synchronized)
    elif name in BACKBONES:
        if image_size is None:
            raise ValueError(f"{name} needs a size")
        x = build_backbone(
            name, inputs, image_size=backbone_size(name, image_size), synchronized=synchronized
        )
    else:
        x = _application_features(APPLICATIONS[name], inputs, synchronized=synchronized)
    x = layers.Dropout(0.2, seed=seed + 100)(x)
    return keras.Model(inputs, _classifier(num_classes)(x), name=name)


def build_pretrained_backbone(name: str, *, image_size: int) -> keras.Model:
    """Returns a backbone with its published weights: RGB images [batch, size, size, 3], 0 to 255, to its features.

    Raises:
        ConfigError: The package of the weights is missing, has another version or was modified.
    """
    inputs: Any = keras.Input((image_size, image_size, 3))
    model = keras.Model(inputs, build_backbone(name, inputs, image_size=backbone_size(name, image_size)))
    load_backbone(model, name, load_pretrained(name))
    return model


def _build_notebook(image_size: int | None, num_classes: int, seed: int) -> keras.Model:
    """Returns exactly the layers of the notebook that this project started from."""
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
        name="notebook",
    )


def _small_features(x: keras.KerasTensor, *, synchronized: bool) -> keras.KerasTensor:
    """Returns the features of a residual network with a stem and three stages.

    After He et al. 2015, with the stem and shortcuts of ResNet-D.

    Plain convolutions, not separable ones: at these widths a separable network took twice the time on a CPU, as
    depthwise convolutions are memory-bound.
    """

    def convolution(
        x: keras.KerasTensor, channels: int, kernel_size: int, strides: int = 1
    ) -> keras.KerasTensor:
        convolution = layers.Conv2D(
            channels,
            kernel_size,
            strides=strides,
            padding="same",
            use_bias=False,  # Batch normalization has its own.
            kernel_initializer="he_normal",
        )
        normalization = layers.BatchNormalization(momentum=_BATCH_NORM_MOMENTUM, synchronized=synchronized)
        return normalization(convolution(x))

    x = layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = layers.ReLU()(convolution(x, _STEM, 5, strides=2))
    for channels in _STAGES:
        y = layers.ReLU()(convolution(x, channels, 3, strides=2))
        y = convolution(y, channels, 3)
        # Pooled before the 1x1 convolution: with strides there, three of four values would be discarded.
        shortcut = convolution(layers.AveragePooling2D(2, padding="same")(x), channels, 1)
        x = layers.ReLU()(layers.Add()([shortcut, y]))
    return layers.GlobalAveragePooling2D()(x)


def _application_features(
    application: Application, x: keras.KerasTensor, *, synchronized: bool
) -> keras.KerasTensor:
    """Returns the features of a model of `keras.applications`, with its own preprocessing."""
    module = getattr(keras.applications, application.module)
    backbone = build_application(application, image_size=x.shape[1])

    def adapted(layer: layers.Layer) -> layers.Layer:
        config = layer.get_config()
        if isinstance(layer, layers.BatchNormalization):
            config["synchronized"] = synchronized
        if isinstance(layer, layers.Normalization) and layer.input_mean is None:
            # EfficientNet stores these as weights, which the layer uses only if they were loaded from a file.
            config |= {"mean": _IMAGENET_MEAN, "variance": [stddev**2 for stddev in _IMAGENET_STDDEV]}
        return type(layer).from_config(config)

    backbone = keras.models.clone_model(backbone, clone_function=adapted)
    return backbone(module.preprocess_input(x))


def build_application(
    application: Application, *, image_size: int, weights: str | None = None
) -> keras.Model:
    """Returns the Keras model without its ImageNet classifier."""
    build = getattr(keras.applications, application.name)
    return build(include_top=False, weights=weights, input_shape=(image_size, image_size, 3), pooling="avg")


def _classifier(num_classes: int) -> layers.Layer:
    # float32 under mixed precision too: float16 cannot represent probabilities near 1 well.
    return layers.Dense(num_classes, activation="softmax", dtype="float32", name=CLASSIFIER)
