"""The command in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What takes seconds to load.
HEAVY = ("tensorflow", "keras", "matplotlib", "sklearn", "cv2", "jinja2", "pyarrow")

LISTS_MODULES = f"""
import sys
from shardstream.predict.__main__ import main
try:
    code = main()
except SystemExit as exit:
    code = exit.code
print("loaded:", *[name for name in {HEAVY!r} if name in sys.modules])
print("code:", code)
"""


def run_python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["run", "data", "--sampel", "3"], 2),
        (["run"], 2),
        (["run", "data", "--all", "--batch", "1"], 2),
        (["run", "no-such-data"], 2),
        (["run", "data", "--show"], 2),
    ],
)
def test_help_and_mistakes_load_nothing_heavy(arguments, code):
    done = run_python("-c", LISTS_MODULES, *arguments, DISPLAY="", WAYLAND_DISPLAY="")
    assert done.stdout.splitlines()[-2:] == ["loaded:", f"code: {code}"]
    assert "Traceback" not in done.stderr


def test_help_explains_every_option():
    printed = run_python("-m", "shardstream.predict", "--help").stdout
    for option in (
        "--split",
        "--sample",
        "--batch",
        "--all",
        "--seed",
        "--gallery",
        "--out",
        "--show",
        "--json",
    ):
        assert option in printed
    assert "200 if neither --batch nor --all is given" in " ".join(printed.replace("│", " ").split())


def test_show_without_a_display_says_so_before_anything_else():
    done = run_python(
        "-m", "shardstream.predict", "no-such-run", "no-such-data", "--show", DISPLAY="", WAYLAND_DISPLAY=""
    )
    assert done.returncode == 2
    assert done.stderr == (
        "shardstream-predict: --show needs a display, and there is none here: neither DISPLAY nor WAYLAND_DISPLAY "
        "is set; leave it out and open the page of the report\n"
    )
    assert done.stdout == ""


def test_show_with_a_display_that_is_not_there_says_so():
    done = run_python(
        "-m",
        "shardstream.predict",
        "no-such-run",
        "no-such-data",
        "--show",
        DISPLAY=":99999",
        WAYLAND_DISPLAY="",
    )
    assert done.returncode == 2
    # The second where scripts/bootstrap had to take OpenCV without windows.
    assert done.stderr.startswith(
        (
            "shardstream-predict: --show cannot open a window here (",
            "shardstream-predict: --show needs OpenCV with windows, and opencv-python-headless is installed",
        )
    )
    assert done.stderr.count("\n") == 1
