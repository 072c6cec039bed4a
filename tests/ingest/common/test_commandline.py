import dataclasses
import errno
import importlib
import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import textwrap
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
        (DatasetError(f"d: {'x' * 9999}; fix it"), 2, f"prog: d: {'x' * 1197} ... {'x' * 492}; fix it"),
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


def test_no_command_is_answered_with_those_there_are(capsys):
    commands = {"do": (Options, lambda _: 0), "undo": (Options, lambda _: 0)}
    assert run("prog", commands, []) == 2
    assert capsys.readouterr().err == (
        "prog: no command given; the commands are do, undo: see `prog --help`\n"
    )
    assert run("prog", commands, ["--help"], description="What it is for.") == 0
    assert "What it is for." in capsys.readouterr().out


def test_a_misspelled_command_is_suggested_beside_a_default_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = []
    commands = {"": (Options, lambda o: given.append(o) or 0), "export": (Options, lambda _: 0)}
    assert run("prog", commands, ["exprot", "r"], default="") == 2
    assert "no command 'exprot'; did you mean `prog export r`?" in capsys.readouterr().err
    (tmp_path / "exprot").mkdir()  # What is there is the argument that it looks like.
    assert run("prog", commands, ["exprot", "--name", "n"], default="") == 0
    assert run("prog", commands, ["data/exports", "--name", "n"], default="") == 0
    assert [str(options.images) for options in given] == ["exprot", "data/exports"]


@pytest.mark.parametrize("command", ["ingest", "train", "predict"])
def test_the_version_is_that_of_the_package(command, capsys):
    main = importlib.import_module(f"shardstream.{command}.__main__").main
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"shardstream-{command} {importlib.metadata.version('shardstream')}\n"


@pytest.mark.parametrize("command", ["ingest", "train", "predict"])
def test_ctrl_c_during_the_imports_ends_in_silence(command):
    # The signal comes when the first of the slow imports begins.
    code = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'tyro': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        f"from shardstream.{command}.__main__ import main\n"
        "main(['--help'])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["my photos", "data"], "prog build 'my photos' data"),
        (["biuld", "photos", "data"], "prog build photos data"),
        (["verfiy", "data"], "prog verify data"),
    ],
)
def test_a_missing_or_misspelled_command_is_suggested(capsys, arguments, meant):
    commands = {"build": (Options, lambda _: 0), "verify": (Options, lambda _: 0)}
    assert run("prog", commands, arguments) == 2
    sentence = f"no command {arguments[0]!r}; did you mean `{meant}`? The commands are build, verify"
    assert capsys.readouterr().err == f"prog: {sentence}\n"


def test_a_value_of_a_file_is_never_a_flag(tmp_path):
    path = tmp_path / "options.toml"
    path.write_text('name = "--json"\nclass_names = ["cat", "-unknown-", "--no-json"]\n')
    assert parse("i", "--config", str(path)) == Options(
        images=Path("i"), name="--json", class_names=("cat", "-unknown-", "--no-json")
    )


def run_script(text, *, redirect="", env=None):
    """Runs a command of its own in a process, as a shell does; returns the exit code and what it printed."""
    script = (
        "import dataclasses, os, sys\n"
        "from shardstream.ingest.common.commandline import run\n"
        "@dataclasses.dataclass(frozen=True)\nclass Options:\n    'Does a thing.'\n"
        f"def act(options):\n{textwrap.indent(textwrap.dedent(text), '    ')}\n    return 0\n"
        "sys.exit(run('prog', {'do': (Options, act)}, ['do']))\n"
    )
    line = f'"$0" -c "$1" {redirect}; exit ${{PIPESTATUS[0]}}'
    command = ["bash", "-c", line, sys.executable, script]
    result = subprocess.run(command, capture_output=True, check=False, env={**os.environ, **(env or {})})
    return result.returncode, (result.stdout + result.stderr).decode("ascii", "replace")


@pytest.mark.parametrize("redirect", ["2>&-", ">&-", "<&-", ">&- 2>&-", "| true", "2>&1 | true"])
def test_the_exit_code_is_that_of_the_work_whoever_listens(redirect):
    text = "import time; time.sleep(0.2); print('x' * 100_000); print('y', file=sys.stderr)"
    exit_code, printed = run_script(text, redirect=redirect)
    assert exit_code == 0
    assert "Traceback" not in printed


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_names_are_printed_in_any_encoding(encoding):
    text = "print('음식', os.fsdecode(b'\\xff'))"
    assert run_script(text, env={"PYTHONIOENCODING": encoding}) == (0, "\\uc74c\\uc2dd \\udcff\n")


@pytest.mark.parametrize(("name", "exit_code"), [("SIGHUP", 129), ("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_has_the_exit_code_of_a_shell(name, exit_code):
    text = f"import signal, time; os.kill(os.getpid(), signal.{name}); time.sleep(60)"
    came, printed = run_script(text)
    assert came == exit_code
    assert "Traceback" not in printed


def test_a_lack_of_memory_is_a_sentence():
    assert run_script("bytes(1 << 60)") == (
        1,
        "prog: not enough memory: give the process more, or give fewer --workers\n",
    )


def test_a_folder_that_was_removed_is_named(tmp_path):
    text = (
        f"os.mkdir('{tmp_path}/gone'); os.chdir('{tmp_path}/gone'); os.rmdir('{tmp_path}/gone'); os.getcwd()"
    )
    assert run_script(text) == (2, "prog: the current folder was removed; change to another one\n")


def test_a_class_may_begin_with_a_dash():
    options = parse("i", "--class-names", "cat", "-unknown-", "-b", "--name", "n")
    assert options == Options(images=Path("i"), name="n", class_names=("cat", "-unknown-", "-b"))
    with pytest.raises(SystemExit, match="2"):
        parse("i", "--name", "n", "-unknown-")


def test_output_that_cannot_be_written_is_named():
    exit_code, printed = run_script("print('x' * 100_000)", redirect=">/dev/full")
    assert (exit_code, printed) == (1, "prog: <stdout>: No space left on device\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        # Before the positional, whose value it would take.
        (["--nmae", "n", "i"], "no option --nmae; did you mean --name?"),
        (["i", "--name", "n", "--sha=0.1"], "no option --sha; did you mean --share?"),
        (["i", "--name", "n", "--no-jsn"], "no option --no-jsn; did you mean --no-json?"),
        (["i", "--name", "n", "--no-share"], "no option --no-share; did you mean --share?"),
        (["i", "--name", "n", "--xyzzy", "3"], "no option --xyzzy; `prog do --help` lists the options"),
    ],
)
def test_an_option_that_does_not_exist_is_one_sentence(capsys, arguments, sentence):
    assert parse(*arguments) == 2
    assert capsys.readouterr().err == f"prog: {sentence}\n"


def test_options_may_be_spelt_with_underscores_and_end_with_two_dashes():
    assert parse("--name", "n", "--image_size", "3", "--", "i") == Options(
        images=Path("i"), name="n", image_size=3
    )
