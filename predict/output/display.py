"""Checks whether there is a display to open a window on."""

import os
import subprocess
import sys
from collections.abc import Mapping

from shardstream.ingest.common.errors import ConfigError

_ATTEMPT = "import cv2; cv2.namedWindow('x'); cv2.destroyAllWindows()"
_INSTEAD = "leave it out and open the page of the report"

# A display behind a dead connection never answers.
_PATIENCE_SECS = 30


def check_display(environment: Mapping[str, str] = os.environ) -> None:
    """Ensures that a window can be opened.

    Without a display OpenCV aborts the process instead of raising an exception. So the environment is checked first,
    and then a separate process tries.

    Raises:
        ConfigError: There is no display, or OpenCV was built without windows.
    """
    if sys.platform == "linux" and not (environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")):
        raise ConfigError(
            "--show needs a display, and there is none here: neither DISPLAY nor WAYLAND_DISPLAY is set; "
            f"{_INSTEAD}"
        )
    reason = _why_no_window(environment)
    if reason is None:
        return
    if "not implemented" in reason:
        raise ConfigError(
            "--show needs OpenCV with windows, and opencv-python-headless is installed, which has none: "
            "on Debian `apt-get install libgl1 libglib2.0-0 libsm6`, then remove .venv and run scripts/bootstrap"
        )
    raise ConfigError(f"--show cannot open a window here ({reason}); {_INSTEAD}")


def _why_no_window(environment: Mapping[str, str]) -> str | None:
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _ATTEMPT],
            check=False,
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECS,
        )
    except subprocess.TimeoutExpired:
        return f"no answer for {_PATIENCE_SECS} seconds"
    if tried.returncode == 0:
        return None
    lines = [line.strip() for line in tried.stderr.splitlines() if line.strip()] or ["no reason given"]
    # A traceback has its reason at the end, Qt at the start.
    raised = [line for line in lines if "rror: " in line]
    return (raised[-1] if lines[0].startswith("Traceback") and raised else lines[0])[:200]
