"""Loads pretrained weights."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import keras

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.train.models.build import CLASSIFIER, build_application, build_model
from shardstream.train.models.registry import APPLICATIONS


def load_weights(model: keras.Model, weights: str, *, class_order: Sequence[int] | None = None) -> None:
    """Loads the weights of another model into a model that `build_model` made.

    Args:
        model: The model; its name tells how it was built.
        weights: "imagenet", which Keras downloads, or the path of a file: `.keras`, from an earlier run or of the
            application itself, or `.weights.h5` or `.h5`, of the application without its top or of one of our models.
        class_order: The output of the other model for each output; by default the last layer stays unchanged.

    Raises:
        ConfigError: The weights are not available.
        DatasetError: The file is corrupt, or belongs to another model.
    """
    source = _downloaded(model) if weights == "imagenet" else _from_file(model, Path(weights))
    ours, theirs = _layers_with_weights(model), _layers_with_weights(source)
    for layer, other in zip(ours, theirs, strict=False):
        if _shapes(layer) != _shapes(other):
            raise DatasetError(
                f"{weights}: not of the model {model.name!r}: layer {layer.name!r} has weights of the shapes "
                f"{_shapes(layer)}, in the file {other.name!r} has {_shapes(other)}"
            )
    if len(ours) != len(theirs):
        raise DatasetError(
            f"{weights}: not of the model {model.name!r}: it has {len(ours)} layers with weights, the file "
            f"{len(theirs)}"
        )
    for layer, other in zip(ours, theirs, strict=True):
        layer.set_weights(other.get_weights())
    if class_order is not None:
        head = source.get_layer(CLASSIFIER).get_weights()
        model.get_layer(CLASSIFIER).set_weights([values[..., list(class_order)] for values in head])


def fix_moments(model: keras.Model) -> None:
    """Freezes the weights and moving averages of batch normalization, which then uses them in training too.

    As Keras's guides recommend for pretrained weights: the first batches of other images would degrade the moving
    averages. Not by calling the model with `training=False` inside another, as one of the guides does: Keras 3.15
    passes on the `training=True` of the outer call instead.
    """
    for layer in _flat(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def _flat(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _flat(layer)
        else:
            yield layer


def _layers_with_weights(model: keras.Model) -> list[keras.layers.Layer]:
    # Normalization holds the statistics of ImageNet, which are constants in our models, not weights.
    return [
        layer
        for layer in _flat(model)
        if layer.weights and layer.name != CLASSIFIER and not isinstance(layer, keras.layers.Normalization)
    ]


def _shapes(layer: keras.layers.Layer) -> list[tuple[int, ...]]:
    return [tuple(variable.shape) for variable in layer.weights]


def _downloaded(model: keras.Model) -> keras.Model:
    application = APPLICATIONS[model.name]
    try:
        return build_application(application, image_size=model.input_shape[1], weights="imagenet")
    # Keras raises a bare Exception if the network is down, and ValueError if there are no weights for a size.
    except Exception as error:
        raise ConfigError(
            f"the ImageNet weights of {model.name} could not be loaded ({_first_line(error)}); without the internet, "
            "fetch the file elsewhere and give --weights PATH"
        ) from None


def _from_file(model: keras.Model, path: Path) -> keras.Model:
    if not path.is_file():
        raise ConfigError(f"--weights {path}: no such file; give none, imagenet or the path of a file")
    if path.suffix not in (".keras", ".h5"):
        raise ConfigError(f"--weights {path}: not a .keras, .weights.h5 or .h5 file by its name")
    try:
        if path.suffix == ".keras":
            return cast(keras.Model, keras.saving.load_model(path, compile=False, safe_mode=True))
        if application := APPLICATIONS.get(model.name):
            return build_application(application, image_size=model.input_shape[1], weights=str(path))
        ours = {"image_size": model.input_shape[1], "num_classes": model.output_shape[1], "seed": 0}
        source = build_model(model.name, **ours)
        source.load_weights(path)
        return source
    # Keras and h5py raise all kinds of exceptions for a corrupt or foreign file.
    except Exception as error:
        raise DatasetError(
            f"{path}: cannot be loaded as weights of {model.name!r}: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
