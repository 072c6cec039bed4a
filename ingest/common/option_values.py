"""Checks the types of option values given in Python; for the command line the parser does it."""

import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shardstream.ingest.common.errors import ConfigError


def option_value(name: str, hint: Any, value: Any) -> Any:
    """Returns the valid value of an option, with NumPy numbers converted to Python's.

    Args:
        name: Name of the option, for the error.
        hint: Its type.
        value: The given value.

    Raises:
        ConfigError: The value has another type, or is not one of the choices.
    """
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        value = value.item()
    kinds = list(_kinds(hint))
    if any(_is_one(kind, value) for kind in kinds):
        return float(value) if float in kinds and int not in kinds and type(value) is int else value
    expected = " or ".join(_spelt(kind) for kind in kinds)
    raise ConfigError(f"{name} must be {expected}, got {value!r}")


def _kinds(hint: Any) -> Iterator[Any]:
    """Yields the types and literals that a type hint allows."""
    if typing.get_origin(hint) is typing.Annotated:
        yield from _kinds(typing.get_args(hint)[0])
    elif typing.get_origin(hint) in (typing.Union, types.UnionType):
        for part in typing.get_args(hint):
            yield from _kinds(part)
    elif typing.get_origin(hint) is typing.Literal:
        yield from map(repr, typing.get_args(hint))
    else:
        yield typing.get_origin(hint) or hint


def _is_one(kind: Any, value: Any) -> bool:
    if isinstance(kind, str):
        return isinstance(value, str) and repr(value) == kind
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind if kind in (int, bool) else isinstance(value, kind)


def _spelt(kind: Any) -> str:
    names = {types.NoneType: "None", int: "a whole number", float: "a number", bool: "True or False"}
    names |= {str: "a string", Path: "a path", tuple: "a list"}
    return kind if isinstance(kind, str) else names.get(kind) or str(kind.__name__)
