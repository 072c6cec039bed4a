"""The variables of a model by name, for checkpoints."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np


def by_name(variables: Iterable[keras.Variable]) -> dict[str, Any]:
    """Returns the tf.Variable of each, by a name that is unique and the same in every process that builds the model."""
    # Keras numbers the layers per process, not per model.
    return {f"{i} {re.sub(r'_[0-9]+', '', v.path)}": v.value for i, v in enumerate(variables)}


def values_of(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns all values; waits for the device."""
    return {name: np.asarray(variable.numpy()) for name, variable in variables.items()}


def find_difference(variables: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> str:
    """Returns in words what does not fit if `values` come from other variables; empty if all do."""
    expected = {name: (variable.dtype.name, tuple(variable.shape)) for name, variable in variables.items()}
    found = {name: (value.dtype.name, value.shape) for name, value in values.items()}
    if not (differing := dict(expected.items() ^ found.items())):
        return ""
    name = min(differing)
    return f"variable {name!r} is {found.get(name, 'missing')} there, expected {expected.get(name, 'none')}"


def assign(variables: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> None:
    """Sets all variables to `values`, which fit."""
    for name, variable in variables.items():
        variable.assign(values[name])
