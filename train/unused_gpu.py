"""Warns if a machine has an NVIDIA GPU that TensorFlow does not see."""

import importlib.metadata
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

logger = logging.getLogger(__name__)

_DRIVER = Path("/proc/driver/nvidia/version")
_ASKING_SECS = 20
_SHOW_REASON = "TF_CPP_MIN_LOG_LEVEL=0 python -c 'import tensorflow as tf; tf.config.list_physical_devices()'"


def warn_of_unused_gpu() -> None:
    """Logs one line, with the command to fix it, if training would use the CPU despite a GPU. Loads TensorFlow.

    Silent if CUDA_VISIBLE_DEVICES hides all GPUs: that was the user's choice.
    """
    import tensorflow as tf

    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1") or tf.config.list_physical_devices("GPU"):
        return
    if _has_driver():
        logger.warning(
            "this machine has an NVIDIA driver, but TensorFlow sees no GPU, and the CPU trains: %s", _remedy()
        )


def _has_driver() -> bool:
    if _DRIVER.exists():
        return True
    if not (program := shutil.which("nvidia-smi")):
        return False
    # Container images include the program on machines without a GPU, where it fails.
    try:
        found = subprocess.run([program, "-L"], check=False, capture_output=True, timeout=_ASKING_SECS)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.returncode == 0


def _remedy() -> str:
    if not _lacks_libraries():
        return f"the libraries of CUDA are there, and `{_SHOW_REASON}` says what is wrong"
    if (Path(sys.prefix) / "bootstrap").is_dir():
        return "`scripts/bootstrap gpu` adds the libraries of CUDA that it lacks"
    version = importlib.metadata.version("tensorflow")
    return f"`pip install 'tensorflow[and-cuda]=={version}'` adds the libraries of CUDA that it lacks"


def _lacks_libraries() -> bool:
    """Returns whether packages that TensorFlow needs to use a GPU are not installed."""
    wanted = [line for line in importlib.metadata.requires("tensorflow") or [] if "and-cuda" in line]
    return not wanted or not all(_is_installed(re.split(r"[^\w.-]", line)[0]) for line in wanted)


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
