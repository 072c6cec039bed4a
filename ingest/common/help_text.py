"""Formats `--help`: the options of a dataclass in its groups.

tyro parses the arguments, but its own help is one long list of all options of a command.
"""

import ast
import dataclasses
import inspect
import shutil
import textwrap
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

# tyro's marker of positional arguments.
_POSITIONAL = get_args(tyro.conf.Positional[int])[1]
_METAVARS = {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH"}
_MAX_WIDTH, _NAME_WIDTH = 100, 24


def positional_names(config_class: type[Any]) -> set[str]:
    """Returns the fields of `config_class` that are arguments without a flag."""
    hints = get_type_hints(config_class, include_extras=True)
    return {name for name, hint in hints.items() if _POSITIONAL in getattr(hint, "__metadata__", ())}


def options_help(prog: str, config_class: type[Any], commands: Mapping[str, type[Any]]) -> str:
    """Returns the help of a command.

    Args:
        prog: The program and command as typed before the arguments.
        config_class: The options. Its optional `option_groups` are titles with fields in order; other fields come last.
        commands: Sub-commands that may be used instead of the arguments: the class of the options by name.
    """
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    positional = positional_names(config_class)
    arguments = [name for name, field in fields.items() if name in positional or _is_required(field)]
    groups = {"arguments": arguments, **getattr(config_class, "option_groups", {})}
    groups["options"] = [name for name in fields if not any(name in names for names in groups.values())]
    hints = get_type_hints(config_class, include_extras=True)
    invocations = {
        name: _metavar(hints[name]) if name in positional else _invocation(field, hints[name])
        for name, field in fields.items()
    }
    texts = _field_texts(config_class)
    usage = [
        invocations[name] if _is_required(fields[name]) else f"[{invocations[name]}]" for name in arguments
    ]
    parts = [f"usage: {' '.join([prog, *usage])} [OPTIONS]"]
    parts += _paragraphs(inspect.cleandoc(config_class.__doc__ or ""))
    if commands:
        parts.append(
            _table("other commands", {f"{prog} {name}": _summary(c) for name, c in commands.items()})
        )
    for title, names in groups.items():
        if names:
            rows = {invocations[name]: texts[name] + _default(fields[name]) for name in names}
            parts.append(_table(title, rows))
    parts.append(
        _wrap("--config FILE.toml reads any of the options from a file; the command line wins over it.")
    )
    return "\n\n".join(parts)


def commands_help(prog: str, description: str, commands: Mapping[str, type[Any]]) -> str:
    """Returns the help of a program with several commands, one line each."""
    parts = [f"usage: {prog} COMMAND ...", *_paragraphs(description)]
    parts.append(
        _table("commands", {name: _summary(config_class) for name, config_class in commands.items()})
    )
    parts.append(_wrap(f"{prog} COMMAND --help has the options of each; {prog} --version is the version."))
    return "\n\n".join(parts)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _invocation(field: dataclasses.Field[Any], hint: Any) -> str:
    flag = "--" + field.name.replace("_", "-")
    if field.default is True:
        return flag.replace("--", "--no-", 1)
    return flag if field.default is False else f"{flag} {_metavar(hint)}"


def _metavar(hint: Any) -> str:
    """Returns the metavar of a value: that of the field, otherwise the choices, otherwise a word for its type."""
    for note in getattr(hint, "__metadata__", ()):
        if getattr(note, "metavar", None):
            return str(note.metavar)
    if get_origin(hint) is Annotated:
        return _metavar(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return "|".join(map(str, get_args(hint)))
    if get_origin(hint) in (Union, types.UnionType):
        return "|".join(_metavar(part) for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is tuple:
        return f"{_metavar(get_args(hint)[0])} ..."
    return _METAVARS[hint]


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return f" (default: {field.default_factory()})"
    # The help text of the option explains an empty default.
    has_value = field.default is not dataclasses.MISSING and field.default not in (None, "", ())
    return f" (default: {field.default})" if has_value and not isinstance(field.default, bool) else ""


def _field_texts(config_class: type[Any]) -> dict[str, str]:
    """Returns the text of each field: the `help` that its type is annotated with, or the string below it."""
    texts: dict[str, str] = {}
    for owner in reversed(config_class.__mro__):
        if dataclasses.is_dataclass(owner):
            texts.update(_strings_below_fields(owner))
    for name, hint in get_type_hints(config_class, include_extras=True).items():
        for note in getattr(hint, "__metadata__", ()):
            if getattr(note, "help", None):
                texts[name] = str(note.help)
    return texts


def _strings_below_fields(owner: type[Any]) -> Iterator[tuple[str, str]]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(definition, ast.ClassDef)  # noqa: S101
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, " ".join(text.split())


def _summary(config_class: type[Any]) -> str:
    """Returns the first sentence of a command's docstring."""
    return inspect.cleandoc(config_class.__doc__ or "").split("\n\n")[0].replace("\n", " ")


def _width() -> int:
    return min(shutil.get_terminal_size().columns, _MAX_WIDTH)


def _wrap(text: str, indent: str = "") -> str:
    """Wraps `text` without breaking words such as --image-size."""
    return textwrap.fill(
        text,
        max(40, _width()),
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _paragraphs(text: str) -> list[str]:
    """Wraps paragraphs except indented ones, which are examples."""
    return [part if part.startswith(" ") else _wrap(part) for part in text.split("\n\n")]


def _table(title: str, rows: Mapping[str, str]) -> str:
    lines = [f"{title}:"]
    indent = " " * (_NAME_WIDTH + 4)
    for name, text in rows.items():
        folded = _wrap(text, indent)
        # A long name gets its own line: a column of that width would leave no room for the texts.
        lines += (
            [f"  {name:<{_NAME_WIDTH}}  {folded.lstrip()}"]
            if len(name) <= _NAME_WIDTH
            else [f"  {name}", folded]
        )
    return "\n".join(lines)
