"""What the three commands share: options from a dataclass, options from a file, errors and exit codes."""

import dataclasses
import difflib
import functools
import inspect
import logging
import operator
import signal
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, get_args, get_type_hints

import tyro

from shardstream.ingest.common.errors import MACHINE_ERRNOS, ConfigError, UserError
from shardstream.ingest.common.terminal import EscapingFormatter, escape_control_chars

Config = TypeVar("Config")
# A command is its options and what runs with them; the docstring of the options is its help.
Command = tuple[type[Config], Callable[[Config], int]]
# What tyro marks a positional argument with.
_POSITIONAL = get_args(tyro.conf.Positional[int])[1]


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt, not an Exception, so that no handler swallows it."""


def run(
    prog: str,
    commands: Mapping[str, Command[Any]],
    argv: Sequence[str] | None,
    *,
    default: str | None = None,
    description: str = "",
) -> int:
    """Parses `argv`, runs the command that it names, and returns the exit code.

    Args:
        prog: The name of the program, for help and errors.
        commands: Each command by name.
        argv: The arguments without the program's name; None takes the process's own.
        default: The command that is meant when the first argument names none.
        description: The text that `--help` opens with where there are several commands.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    previous = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        config, act = _parse(prog, commands, arguments, default=default, description=description)
        return act(config)
    except UserError as error:
        return _complain(prog, str(error), error.exit_code)
    except OSError as error:
        if error.errno is None:
            raise  # Not from the operating system: a bug, and its traceback is wanted.
        where = f"{error.filename}: " if error.filename else ""
        return _complain(prog, f"{where}{error.strerror}", 1 if error.errno in MACHINE_ERRNOS else 2)
    except KeyboardInterrupt:
        return _complain(prog, "stopped by Ctrl-C", 130)
    except Terminated:
        return _complain(prog, "stopped by SIGTERM", 143)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _parse(
    prog: str,
    commands: Mapping[str, Command[Any]],
    arguments: list[str],
    *,
    default: str | None,
    description: str,
) -> tuple[Any, Callable[[Any], int]]:
    named = bool(arguments) and arguments[0] in commands
    if not named and default is None:
        _explain_commands(prog, commands, arguments, description)
    name = arguments[0] if named else str(default)
    config_class, act = commands[name]
    flags = _with_config_file(config_class, arguments[1:] if named else arguments)
    prog = f"{prog} {name}" if named else prog
    return tyro.cli(config_class, args=flags, prog=prog, description=_describe(config_class)), act


def _describe(config_class: type[Any]) -> str:
    return (
        f"{inspect.cleandoc(config_class.__doc__ or '')}\n\n"
        "--config FILE.toml reads any of the options from a file; options on the command line win."
    )


def _explain_commands(
    prog: str, commands: Mapping[str, Command[Any]], arguments: list[str], description: str
) -> NoReturn:
    """Lets tyro print the list of commands, or what is wrong with the one that was given."""
    choices: list[Any] = [
        Annotated[config_class, tyro.conf.subcommand(name)] for name, (config_class, _) in commands.items()
    ]
    union: Any = functools.reduce(operator.or_, choices)
    tyro.cli(union, args=arguments, prog=prog, description=description)
    raise ConfigError(f"{prog}: no command given")


def _with_config_file(config_class: type[Any], arguments: list[str]) -> list[str]:
    """Returns `arguments` with `--config FILE` replaced by the flags that the file stands for.

    They come before the flags of the command line, which therefore win, and behind leading positionals, which
    a flag with a list would take for its own.
    """
    positions = [i for i, argument in enumerate(arguments) if argument.split("=", 1)[0] == "--config"]
    if not positions:
        return arguments
    first = positions[0]
    if len(positions) > 1:
        raise ConfigError("--config was given twice; put all options into one file")
    if "=" in arguments[first]:
        path, rest = arguments[first].split("=", 1)[1], arguments[:first] + arguments[first + 1 :]
    elif first + 1 < len(arguments):
        path, rest = arguments[first + 1], arguments[:first] + arguments[first + 2 :]
    else:
        raise ConfigError("--config needs the path of a TOML file")
    num_leading = next((i for i, argument in enumerate(rest) if argument.startswith("-")), len(rest))
    return [*rest[:num_leading], *_flags_from_file(config_class, Path(path)), *rest[num_leading:]]


def _flags_from_file(config_class: type[Any], path: Path) -> list[str]:
    """Returns the flags that say what the TOML file at `path` says."""
    try:
        options = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from None
    hints = get_type_hints(config_class, include_extras=True)
    positional = {name for name, hint in hints.items() if _POSITIONAL in getattr(hint, "__metadata__", ())}
    known = [field.name for field in dataclasses.fields(config_class) if field.name not in positional]
    flags: list[str] = []
    for key, value in options.items():
        name = key.replace("-", "_")
        if name in positional:
            raise ConfigError(f"{path}: {key!r} belongs on the command line, not into the file")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; the keys are {', '.join(known)}"
            raise ConfigError(f"{path}: unknown key {key!r}{hint}")
        flags += _flag(path, key, value)
    return flags


def _flag(path: Path, key: str, value: object) -> list[str]:
    flag = "--" + key.replace("_", "-")
    match value:
        case bool():
            return [flag if value else f"--no-{flag[2:]}"]
        case str() | int() | float():
            return [flag, str(value)]
        case list() if all(isinstance(item, str | int | float) for item in value):
            return [flag, *map(str, value)]
    raise ConfigError(f"{path}: {key!r} has to be a string, a number, true, false or a list, found {value!r}")


def log_to_stderr() -> None:
    """Lets warnings of the library be seen, whatever names are in them."""
    handler = logging.StreamHandler()
    handler.setFormatter(EscapingFormatter())
    logging.basicConfig(handlers=[handler])


def _raise_terminated(*_: object) -> NoReturn:
    raise Terminated


def _complain(prog: str, sentence: str, exit_code: int) -> int:
    print(
        f"{prog}: {escape_control_chars(sentence)}", file=sys.stderr
    )  # It names files, classes, what a file holds.
    return exit_code
