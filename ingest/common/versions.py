"""The versions of the libraries that determine the bytes of a dataset."""

import functools
import importlib.metadata
from collections.abc import Mapping

_PACKAGES = ("shardstream", "simplejpeg", "pillow", "numpy")
# Several packages provide this import name.
_OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


@functools.cache
def _installed() -> tuple[tuple[str, str], ...]:
    found = [(name, _version(name)) for name in _PACKAGES]
    opencv = next((version for version in map(_version, _OPENCV) if version), "")
    return (*found, ("opencv", opencv))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def writer_versions() -> dict[str, str]:
    """Returns the versions of shardstream and of the decoders and encoders, by name."""
    return dict(_installed())


def differing(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Returns the differing versions, for a message; empty if there are none."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(f"{name} {before.get(name, 'unknown')} (now {now.get(name, 'none')})" for name in names)


def mixed(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Returns the versions of records that were made by several versions, all of them by name."""
    found = {}
    for name in {**before, **now}:
        versions = [*before.get(name, "unknown").split(" + "), now.get(name, "none")]
        found[name] = " + ".join(dict.fromkeys(versions))
    return found
