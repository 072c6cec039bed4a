"""All variables of a compiled Keras model by name: weights, optimizer, states of random layers."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shardstream.ingest.common.errors import ConfigError

if TYPE_CHECKING:
    import keras


def build_variables(model: "keras.Model", input_shape: Sequence[int | None]) -> None:
    """Creates all variables, which Keras would otherwise create in the first step."""
    compiled: Any = model
    with compiled.distribute_strategy.scope():
        if not compiled.built:
            compiled.build(tuple(input_shape))
        if not compiled.optimizer.built:
            compiled.optimizer.build(compiled.trainable_variables)


def read_variables(model: "keras.Model") -> dict[str, np.ndarray]:
    """Returns the values of all variables; waits for the device."""
    return {name: np.asarray(variable.value.numpy()) for name, variable in _variables(model).items()}


def restore_variables(model: "keras.Model", values: Mapping[str, np.ndarray]) -> None:
    """Restores the values of all variables that `read_variables` returned.

    Raises:
        ConfigError: They belong to another model or optimizer.
    """
    variables = _variables(model)
    expected = {name: (variable.dtype, tuple(variable.shape)) for name, variable in variables.items()}
    found = {name: (array.dtype.name, array.shape) for name, array in values.items()}
    if different := sorted(dict(expected.items() ^ found.items())):
        name = different[0]
        raise ConfigError(
            f"saved with another model or optimizer: {name!r} is {found.get(name, 'missing')} there, "
            f"expected {expected.get(name, 'none')}"
        )
    for name, variable in variables.items():
        variable.assign(values[name])


def _variables(model: "keras.Model") -> dict[str, Any]:
    compiled: Any = model
    variables = [*compiled.variables, *compiled.optimizer.variables]
    # Keras numbers the layers per process in their names.
    return {f"{i} {re.sub(r'_[0-9]+', '', v.path)}": v for i, v in enumerate(variables)}
