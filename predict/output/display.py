"""Whether there is a display that a window can be opened on."""

import os
import subprocess
import sys
from collections.abc import Mapping

from shardstream.ingest.common.errors import ConfigError

_ATTEMPT = "import cv2; cv2.namedWindow('x'); cv2.destroyAllWindows()"
_INSTEAD = "leave it out and open the page of the report"

# A display at the end of a dead connection answers never.
_PATIENCE_SECS = 30


def check_display(environment: Mapping[str, str] = os.environ) -> None:
    """Ensures that a window can be opened.

    Without a display OpenCV does not raise an exception, it aborts the process. So the environment is asked
    first, and then another process tries.

    Raises:
        ConfigError: There is no display, or an OpenCV that has no windows.
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
    # A traceback has its reason at the end, Qt says it first.
    raised = [line for line in lines if "rror: " in line]
    return (raised[-1] if lines[0].startswith("Traceback") and raised else lines[0])[:200]
