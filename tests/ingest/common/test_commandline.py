import dataclasses
import errno
import os
import re
import signal
from pathlib import Path

import pytest
import tyro

from shardstream.ingest.common.commandline import run
from shardstream.ingest.common.errors import DatasetError, LimitError, MachineError


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Does a thing."""

    images: tyro.conf.Positional[Path]
    """A folder."""
    name: str
    """Has no default, and is no positional either."""
    class_names: tuple[str, ...] = ()
    """Some names."""
    image_size: int = 300
    """A number."""
    share: float = 0.2
    """A share."""
    json: bool = False
    """A switch."""


def parse(*arguments: str) -> Options | int:
    """Returns the options that a command is given, or the exit code where it is not called."""
    given: list[Options] = []
    exit_code = run("prog", {"do": (Options, lambda options: given.append(options) or 0)}, ["do", *arguments])
    return given[0] if given else exit_code


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "options.toml"
    path.write_text('name = "n"\nimage-size = 64\nclass_names = ["b", "a"]\nshare = 0.5\njson = true\n')
    return path


EXPECTED = Options(images=Path("i"), name="n", class_names=("b", "a"), image_size=64, share=0.5, json=True)


def test_a_file_says_what_flags_say(file):
    assert parse("i", "--config", str(file)) == EXPECTED
    assert parse(f"--config={file}", "--json", "i") == EXPECTED
    assert (
        parse("i", "--name", "n", "--class-names", "b", "a", "--image-size", "64", "--share", "0.5", "--json")
        == EXPECTED
    )


def test_the_command_line_wins_over_the_file(file):
    changes = ("--image-size", "32", "--class-names", "c", "--no-json")
    expected = dataclasses.replace(EXPECTED, image_size=32, class_names=("c",), json=False)
    assert parse("i", "--config", str(file), *changes) == expected
    assert parse("i", *changes, "--config", str(file)) == expected


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("imagesize = 3", "unknown key 'imagesize'; did you mean 'image_size'?"),
        ("zzz = 3", "unknown key 'zzz'; the keys are name, class_names, image_size, share, json"),
        ('images = "x"', "'images' belongs on the command line, not into the file"),
        ("name = {a = 1}", "'name' has to be a string, a number, true, false or a list, found {'a': 1}"),
        ("name = ", "not a TOML file"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, capsys, content, sentence):
    path = tmp_path / "c.toml"
    path.write_text(content)
    assert parse("i", "--config", str(path)) == 2
    assert re.match(re.escape(f"prog: {path}: {sentence}"), capsys.readouterr().err)


def test_a_file_is_given_once_and_by_name(file, capsys):
    assert parse("i", "--config", str(file), "--config", str(file)) == 2
    assert parse("i", "--config") == 2
    assert parse("i", "--config", str(file.with_name("no.toml"))) == 2
    twice, nameless, absent = capsys.readouterr().err.splitlines()
    assert twice == "prog: --config was given twice; put all options into one file"
    assert nameless == "prog: --config needs the path of a TOML file"
    assert absent == f"prog: {file.with_name('no.toml')}: No such file or directory"


@pytest.mark.parametrize(
    ("error", "exit_code", "sentence"),
    [
        (DatasetError("d: wrong"), 2, "prog: d: wrong"),
        (LimitError("too many"), 3, "prog: too many"),
        (MachineError("no space"), 1, "prog: no space"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "prog: /x: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 1, "prog: /x: No space left on device"),
        (KeyboardInterrupt(), 130, "prog: stopped by Ctrl-C"),
    ],
)
def test_errors_are_a_sentence_and_an_exit_code(capsys, error, exit_code, sentence):
    def fail(_):
        raise error

    assert run("prog", {"do": (Options, fail)}, ["do", "i", "--name", "n"]) == exit_code
    assert capsys.readouterr().err == f"{sentence}\n"


def test_sigterm_is_143_and_its_handler_goes_with_the_command(capsys):
    before = signal.getsignal(signal.SIGTERM)
    ended = run(
        "prog", {"do": (Options, lambda _: os.kill(os.getpid(), signal.SIGTERM))}, ["do", "i", "--name", "n"]
    )
    assert ended == 143
    assert capsys.readouterr().err == "prog: stopped by SIGTERM\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run("prog", {"do": (Options, lambda _: 1 // 0)}, ["do", "i", "--name", "n"])


def test_no_command_or_another_one_is_answered_with_those_there_are(capsys):
    commands = {"do": (Options, lambda _: 0), "undo": (Options, lambda _: 0)}
    for arguments in ([], ["redo"]):
        with pytest.raises(SystemExit) as left:
            run("prog", commands, arguments)
        assert left.value.code == 2
        assert re.search(r"do, undo", capsys.readouterr().err)
