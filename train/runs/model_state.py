"""All variables of a compiled Keras model by name: weights, optimizer, states of random layers."""

from collections.abc import Sequence
from typing import Any

import keras

from shardstream.train.engine.variables import by_name


def build_variables(model: keras.Model, input_shape: Sequence[int | None]) -> None:
    """Creates all variables, which Keras would otherwise create in the first step."""
    compiled: Any = model
    with compiled.distribute_strategy.scope():
        if not compiled.built:
            compiled.build(tuple(input_shape))
        if not compiled.optimizer.built:
            compiled.optimizer.build(compiled.trainable_variables)


def all_variables(model: keras.Model) -> dict[str, Any]:
    """Returns all variables by name."""
    compiled: Any = model
    return by_name([*compiled.variables, *compiled.optimizer.variables])
