import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scripts.bench.peers.way import opencv_wheel

ROOT = Path(__file__).resolve().parents[2]
LOCKS = [
    "requirements.lock",
    "requirements-build.lock",
    "requirements-dev.lock",
    "requirements-headless.lock",
    "requirements-gpu.lock",
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def pins(lock: str) -> dict[str, set[str]]:
    """Returns the versions of each package; several where they differ by Python."""
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE):
        versions.setdefault(name, set()).add(version)
    return versions


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_pinned_by_hash(lock):
    text = (ROOT / lock).read_text()
    entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert text.startswith(entries[0])  # Nothing but pins: no options, no addresses.


@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_names_a_registry(lock):
    text = (ROOT / lock).read_text()
    assert re.findall(r"https?:|file:|--\S*(?:index|find-links)\S*", text) == []


@pytest.mark.parametrize(
    ("wanted", "lock"),
    [
        *((dependency, "requirements.lock") for dependency in PROJECT["project"]["dependencies"]),
        *((dependency, "requirements-build.lock") for dependency in PROJECT["dependency-groups"]["build"]),
        *((dependency, "requirements-dev.lock") for dependency in PROJECT["dependency-groups"]["dev"]),
        *((dependency, "requirements-build.lock") for dependency in PROJECT["build-system"]["requires"]),
        *(
            (dependency, "requirements-gpu.lock")
            for dependency in importlib.metadata.requires("tensorflow") or []
            if "and-cuda" in dependency
        ),
    ],
)
def test_what_pyproject_asks_for_is_locked(wanted, lock):
    # Fails after a change in pyproject.toml: run scripts/lock.
    requirement = Requirement(wanted)
    versions = pins(lock).get(requirement.name, set())
    assert versions
    assert all(requirement.specifier.contains(version, prereleases=True) for version in versions)


def test_what_is_imported_is_installed():
    """With the project itself, or with an extra; not with the tools of its developers."""
    names = set()
    for package in ("ingest", "train", "predict"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                    names.add(node.module.split(".")[0])
    distributions = importlib.metadata.packages_distributions()
    # _typeshed is for type checkers, and no package.
    extras = {"dask", "distributed", "onnx", "tf2onnx", "pillow_heif"}
    others = names - sys.stdlib_module_names - {"shardstream", "_typeshed"} - extras
    # Where the system lacks libGL, scripts/bootstrap installs the headless wheel of OpenCV.
    installed = {name.lower().replace("_", "-") for name in pins("requirements.lock")} | {opencv_wheel()}
    found = {name: {one.lower().replace("_", "-") for one in distributions[name]} for name in others}
    assert {name for name, owners in found.items() if not owners & installed} == set()


@pytest.mark.parametrize(
    "lock", ["requirements-build.lock", "requirements-dev.lock", "requirements-gpu.lock"]
)
def test_locks_that_are_installed_together_agree(lock):
    # One after the other into one environment: the later would undo what the earlier pinned.
    for other in LOCKS:
        both = pins(lock).keys() & pins(other).keys()
        assert {name: pins(lock)[name] for name in both} == {name: pins(other)[name] for name in both}


def test_opencv_without_windows_is_of_the_same_version():
    assert pins("requirements-headless.lock") == {
        "opencv-python-headless": pins("requirements.lock")["opencv-python"]
    }
