"""All variables of a compiled Keras model by name: weights, optimizer, states of random layers."""

from typing import Any

import keras

from shardstream.train.engine.variables import by_name


def build_variables(model: keras.Model, image_size: int) -> None:
    """Creates all variables, which Keras would otherwise create in the first step."""
    compiled: Any = model
    with compiled.distribute_strategy.scope():
        if not compiled.built:
            # Not `build`: that of a subclass of Model creates no variables of its layers.
            compiled(keras.Input((image_size, image_size, 3), dtype="uint8"))
        if not compiled.optimizer.built:
            compiled.optimizer.build(compiled.trainable_variables)


def all_variables(model: keras.Model) -> dict[str, Any]:
    """Returns all variables by name."""
    compiled: Any = model
    return by_name([*compiled.variables, *compiled.optimizer.variables])
