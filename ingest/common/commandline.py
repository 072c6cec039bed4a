"""The command line shared by all commands: options from a dataclass, options from a file, errors and exit codes."""

import contextlib
import dataclasses
import difflib
import errno
import itertools
import logging
import os
import shlex
import signal
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_origin, get_type_hints

import tyro

from shardstream.ingest.common.errors import MACHINE_ERRNOS, ConfigError, UserError
from shardstream.ingest.common.help_text import commands_help, options_help, positional_names
from shardstream.ingest.common.safe_files import read_regular
from shardstream.ingest.common.standard_streams import flush_streams, prepare_streams
from shardstream.ingest.common.terminal import EscapingFormatter, escape_control_chars
from shardstream.ingest.common.versions import writer_versions

Config = TypeVar("Config")
# A command: the dataclass of its options, whose docstring is the help text, and the function that runs it.
Command = tuple[type[Config], Callable[[Config], int]]
# A private-use character, which occurs in no value.
_STAND_IN = "\ue000"
# Limits for error messages: the start says what is wrong, the end what to do, so the middle is cut.
_MAX_SENTENCE_CHARS, _KEPT_START_CHARS, _KEPT_END_CHARS = 1800, 1200, 500


class Terminated(BaseException):
    """SIGTERM or SIGHUP was received. Like KeyboardInterrupt, not an Exception, so that no handler swallows it."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


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
        commands: The commands by name.
        argv: The arguments without the program's name; None for those of the process.
        default: The command to run if the first argument is not a command.
        description: The first paragraph of `--help` if there are several commands.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    prepare_streams()
    with _signals_raise():
        exit_code = _run(prog, commands, arguments, default=default, description=description)
        flush_streams()
        return exit_code


def _run(
    prog: str,
    commands: Mapping[str, Command[Any]],
    arguments: list[str],
    *,
    default: str | None,
    description: str,
) -> int:
    try:
        shown = _help_or_version(prog, commands, arguments, default=default, description=description)
        if shown is not None:
            print(shown)
            return 0
        config, act = _parse(prog, commands, arguments, default=default)
        return act(config)
    except UserError as error:
        return _complain(prog, str(error), error.exit_code)
    except (MemoryError, ImportError, RuntimeError) as error:
        if not _is_lack_of_memory(error):
            raise
        return _complain(prog, "not enough memory: give the process more, or give fewer --workers", 1)
    except OSError as error:
        if error.errno is None:
            raise  # Not from the operating system: a bug, so show the traceback.
        return _complain(prog, _system_error(error), 1 if error.errno in MACHINE_ERRNOS else 2)
    except KeyboardInterrupt:
        return _complain(prog, "stopped by Ctrl-C", 130)
    except Terminated as stopped:
        return _complain(prog, f"stopped by {stopped.signal.name}", 128 + stopped.signal)


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Converts SIGTERM and SIGHUP to exceptions, so that cleanup code runs."""
    # Signals that were ignored at start-up stay ignored, such as SIGHUP with `nohup`.
    handled = [
        number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, _raise_terminated) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_lack_of_memory(error: BaseException) -> bool:
    """Whether an error is one of Python's ways to report a lack of memory: for an object, a library or a thread."""
    words = ("allocate memory", "map segment", "start new thread")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def _system_error(error: OSError) -> str:
    if error.filename:
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
        return f"{name}: {error.strerror}"
    if error.errno == errno.ENOENT:
        try:
            os.getcwd()  # noqa: PTH109
        except FileNotFoundError:
            return "the current folder was removed; change to another one"
    return str(error.strerror)


def _parse(
    prog: str,
    commands: Mapping[str, Command[Any]],
    arguments: list[str],
    *,
    default: str | None,
) -> tuple[Any, Callable[[Any], int]]:
    named = bool(arguments) and arguments[0] in commands
    if not named:
        _check_command(prog, commands, arguments, default=default)
    name = arguments[0] if named else str(default)
    config_class, act = commands[name]
    flags, values = _with_config_file(config_class, arguments[1:] if named else arguments)
    flags = _with_dashes_in_lists(config_class, flags, values)
    prog = f"{prog} {name}" if named else prog
    _check_options(prog, config_class, flags)
    return _with_values(tyro.cli(config_class, args=flags, prog=prog), values), act


def _help_or_version(
    prog: str,
    commands: Mapping[str, Command[Any]],
    arguments: list[str],
    *,
    default: str | None,
    description: str,
) -> str | None:
    """Returns the output of `--help` or `--version`; None without these flags."""
    if arguments[:1] == ["--version"]:
        return f"{prog} {writer_versions()['shardstream']}"
    if not {"-h", "--help"} & set(arguments):
        return None
    classes = {name: config_class for name, (config_class, _) in commands.items()}
    if arguments[0] in commands:
        return options_help(f"{prog} {arguments[0]}", classes[arguments[0]], {})
    if default is None:
        return commands_help(prog, description, classes)
    return options_help(prog, classes.pop(default), classes)


def _check_command(
    prog: str, commands: Mapping[str, Command[Any]], arguments: list[str], *, default: str | None
) -> None:
    """Suggests a command if the first argument is none, unless the default command applies.

    Raises:
        ConfigError: The default command does not apply.
    """
    first = arguments[0] if arguments else ""
    named = [name for name in commands if name]
    # A path is not a misspelled command.
    close = [] if first.startswith("-") or os.sep in first else difflib.get_close_matches(first, named, n=1)
    if default is not None and (not close or os.path.lexists(first)):
        return
    if not first or first.startswith("-"):
        raise ConfigError(f"no command given; the commands are {', '.join(named)}: see `{prog} --help`")
    # Without a similar command name, assume that the command was omitted: suggest the first one.
    meant = [prog, *close, *arguments[1:]] if close else [prog, named[0], *arguments]
    raise ConfigError(
        f"no command {first!r}; did you mean `{shlex.join(meant)}`? The commands are {', '.join(named)}"
    )


def _check_options(prog: str, config_class: type[Any], arguments: Sequence[str]) -> None:
    """Suggests an option for one that does not exist: its value would count as a positional argument otherwise.

    Raises:
        ConfigError: There is no such option.
    """
    hints, positional = get_type_hints(config_class), positional_names(config_class)
    fields = [field.name for field in dataclasses.fields(config_class) if field.name not in positional]
    known = [
        name.replace("_", "-")
        for name in [*fields, *(f"no_{name}" for name in fields if hints[name] is bool)]
    ]
    for word in itertools.takewhile(lambda word: word != "--", arguments):
        name = word.split("=", 1)[0][2:].replace("_", "-")
        if word.startswith("--") and name not in known:
            longer = [one for one in known if one.startswith(name)]
            close = longer if len(longer) == 1 else difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean --{close[0]}?" if close else f"`{prog} --help` lists the options"
            raise ConfigError(f"no option --{name}; {hint}")


def _with_values(config: Any, values: Mapping[str, str]) -> Any:
    """Returns `config` with placeholders replaced by their values."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config) if values else ():
        value = getattr(config, field.name)
        if isinstance(value, str) and value in values:
            changes[field.name] = values[value]
        elif isinstance(value, Path) and str(value) in values:
            changes[field.name] = Path(values[str(value)])
        elif isinstance(value, tuple) and any(item in values for item in value if isinstance(item, str)):
            changes[field.name] = tuple(values.get(item, item) for item in value)
    return dataclasses.replace(config, **changes) if changes else config


def _with_dashes_in_lists(config_class: type[Any], arguments: list[str], values: dict[str, str]) -> list[str]:
    """Replaces list values that start with one dash by placeholders, which are added to `values`.

    A class may be called -unknown-, and the only short option is -h.
    """
    hints = get_type_hints(config_class)
    lists = {"--" + name.replace("_", "-") for name, hint in hints.items() if get_origin(hint) is tuple}
    words, is_in_list = [], False
    for word in arguments:
        if word.startswith("--"):
            is_in_list = word in lists
        if is_in_list and word != "-h" and word.startswith("-") and not word.startswith("--"):
            words.append(stand_in := f"{_STAND_IN}{len(values)}")
            values[stand_in] = word
        else:
            words.append(word)
    return words


def _with_config_file(config_class: type[Any], arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Returns `arguments` with `--config FILE` replaced by the flags from the file.

    Also returns the values by the placeholders that replace them, for values that look like flags.

    The flags are inserted before those of the command line, which therefore take precedence, and after leading
    positionals, which a list flag would otherwise consume.
    """
    positions = [i for i, argument in enumerate(arguments) if argument.split("=", 1)[0] == "--config"]
    if not positions:
        return arguments, {}
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
    values: dict[str, str] = {}
    flags = _flags_from_file(config_class, Path(path), values)
    return [*rest[:num_leading], *flags, *rest[num_leading:]], values


def _flags_from_file(config_class: type[Any], path: Path, values: dict[str, str]) -> list[str]:
    """Returns the options in the TOML file at `path` as flags; adds placeholders to `values`."""
    text = read_regular(path)
    try:
        options = tomllib.loads(text.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from None
    positional = positional_names(config_class)
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
        flags += _flag(path, key, value, values)
    return flags


def _flag(path: Path, key: str, value: object, values: dict[str, str]) -> list[str]:
    def word(item: object) -> str:
        """Returns a value as an argument that cannot be parsed as a flag."""
        if not (isinstance(item, str) and item.startswith("-")):
            return str(item)
        stand_in = f"{_STAND_IN}{len(values)}"
        values[stand_in] = item
        return stand_in

    flag = "--" + key.replace("_", "-")
    match value:
        case bool():
            return [flag if value else f"--no-{flag[2:]}"]
        case str() | int() | float():
            return [flag, word(value)]
        case list() if all(isinstance(item, str | int | float) for item in value):
            return [flag, *map(word, value)]
    raise ConfigError(f"{path}: {key!r} has to be a string, a number, true, false or a list, found {value!r}")


class _StderrHandler(logging.Handler):
    """Writes to the current sys.stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def log_to_stderr() -> None:
    """Logs warnings of the library to stderr, with control characters in names escaped."""
    handler = _StderrHandler()
    handler.setFormatter(EscapingFormatter())
    logging.basicConfig(handlers=[handler])


def _raise_terminated(number: int, _: object) -> NoReturn:
    raise Terminated(number)


def _complain(prog: str, sentence: str, exit_code: int) -> int:
    # It contains file names, class names or file contents of any length.
    if len(sentence) > _MAX_SENTENCE_CHARS:
        sentence = f"{sentence[:_KEPT_START_CHARS]} ... {sentence[-_KEPT_END_CHARS:]}"
    print(f"{prog}: {escape_control_chars(sentence)}", file=sys.stderr)
    return exit_code
