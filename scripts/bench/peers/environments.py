"""A separate environment for each library to compare, created once and kept."""

import subprocess
import sys
from pathlib import Path

# The packages to install; their dependencies are not pinned.
PINS: dict[str, tuple[str, ...]] = {
    "ffcv": ("torch==2.13.0", "ffcv==1.0.2", "pillow==13.0.0", "simplejpeg==1.9.0"),
    "dali": ("nvidia-dali-cuda120==2.4.0", "numpy==2.4.6"),
    "grain": ("grain==0.2.18", "array-record==0.8.6", "numpy==2.4.6", "simplejpeg==1.9.0"),
    "webdataset": ("torch==2.13.0", "webdataset==1.0.2", "simplejpeg==1.9.0"),
    "litdata": ("torch==2.13.0", "litdata==0.2.76", "simplejpeg==1.9.0"),
    # It imports torchvision, which requires a specific version of torch.
    "streaming": ("torch==2.14.1", "torchvision==0.29.1", "mosaicml-streaming==0.13.0", "simplejpeg==1.9.0"),
}
# FFCV is compiled when it is installed.
SYSTEM_PACKAGES = "pkg-config g++ python3-dev libturbojpeg0-dev libopencv-dev"


class InstallError(Exception):
    """An environment could not be created."""


def python_of(name: str, folder: Path) -> str:
    """Returns the Python of the environment `name` in `folder`, which is created unless it exists with these packages.

    Raises:
        InstallError: It cannot be created; the message is the reason in one line.
    """
    home = folder / name
    stamp = home / "pins.txt"
    pins = "".join(f"{pin}\n" for pin in PINS[name])
    if stamp.is_file() and stamp.read_text() == pins:
        return str(home / "bin" / "python")
    print(f"{name}: making {home}", file=sys.stderr, flush=True)
    python = str(home / "bin" / "python")
    # Installed by the pip of this environment: Debian's Python has no ensurepip without python3-venv.
    _run([sys.executable, "-m", "venv", "--without-pip", str(home)], name)
    # One after the other, so that no library installs another version of torch.
    for pin in PINS[name]:
        pip = [sys.executable, "-m", "pip", "--python", python]
        _run([*pip, "install", "--quiet", "--disable-pip-version-check", pin], name)
    stamp.write_text(pins)
    return python


def _run(command: list[str], name: str) -> None:
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        # Some programs, such as `venv`, write errors to stdout.
        said = [line.strip() for line in (result.stdout + "\n" + result.stderr).splitlines() if line.strip()]
        reasons = [line for line in said if "error" in line.lower()] or said[-1:] or ["no reason given"]
        hint = f" (it needs {SYSTEM_PACKAGES} of the system)" if name == "ffcv" else ""
        raise InstallError(f"not installed: {reasons[-1] if name != 'ffcv' else reasons[0]}{hint}")
