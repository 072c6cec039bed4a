import re
import stat
import sys

import pytest

from shardstream.ingest.common.errors import ConfigError
from shardstream.predict.output import display
from shardstream.predict.output.display import check_display


@pytest.fixture
def python_that(tmp_path, monkeypatch):
    """Puts a program that writes to stderr and exits with 1 in the place of the Python that tries."""

    def make(says):
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{says}\nEND\nexit 1\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(display.sys, "executable", str(program))

    return make


def check(sentence):
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        check_display({"DISPLAY": ":7", "PATH": "/usr/bin:/bin"})


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have a display without saying so")
@pytest.mark.parametrize("environment", [{}, {"DISPLAY": ""}, {"DISPLAY": "", "WAYLAND_DISPLAY": ""}])
def test_no_display_is_found_out_without_trying(environment, python_that):
    python_that("tried")
    with pytest.raises(ConfigError, match="neither DISPLAY nor WAYLAND_DISPLAY is set"):
        check_display(environment)


def test_opencv_without_windows(python_that):
    python_that(
        "Traceback (most recent call last):\n"
        '  File "<string>", line 1, in <module>\n'
        "cv2.error: OpenCV(5.0.0) window.cpp:1295: error: (-2:Unspecified error) The function is not implemented. "
        "Rebuild the library with Windows, GTK+ 2.x or Cocoa support."
    )
    check(
        "--show needs OpenCV with windows, and opencv-python-headless is installed, which has none: "
        "on Debian `apt-get install libgl1 libglib2.0-0 libsm6`, then remove .venv and run scripts/bootstrap"
    )


def test_a_library_that_is_missing(python_that):
    python_that(
        'Traceback (most recent call last):\n  File "<string>", line 1, in <module>\n'
        "ImportError: libGL.so.1: cannot open shared object file"
    )
    check(
        "--show cannot open a window here (ImportError: libGL.so.1: cannot open shared object file); "
        "leave it out and open the page of the report"
    )


def test_a_display_that_does_not_answer(python_that):
    python_that("qt.qpa.xcb: could not connect to display :7\nqt.qpa.plugin: Could not load\nAborted")
    check(
        "--show cannot open a window here (qt.qpa.xcb: could not connect to display :7); "
        "leave it out and open the page of the report"
    )
