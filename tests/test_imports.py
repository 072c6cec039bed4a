"""What a command loads before it knows what it is asked, in fresh interpreters."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("ingest", "train", "predict")
ARGUMENTS = {"ingest": ("build", "photos", "d"), "train": ("d", "--run", "r"), "predict": ("r", "d")}
HEAVY = ("tensorflow", "keras", "tensorflow_datasets", "cv2", "matplotlib", "sklearn", "pyarrow")
# Runs a module as `python -m` does, and prints which heavy modules came with it.
RUN = f"""
import runpy, sys
del sys.argv[0]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
finally:
    print("LOADED", sorted(set({HEAVY!r}) & set(sys.modules)))
"""


def loaded(*arguments: str) -> tuple[int, str, str]:
    result = subprocess.run(
        [sys.executable, "-c", RUN, f"shardstream.{arguments[0]}", *arguments[1:]],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout.rsplit("LOADED ", 1)[1].strip(), result.stdout + result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_nothing_heavy(command):
    assert loaded(command, "--help")[:2] == (0, "[]")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_misspelt_option_loads_nothing_heavy_and_is_answered(command):
    exit_code, modules, printed = loaded(command, *ARGUMENTS[command], "--sede", "3")
    assert (exit_code, modules) == (2, "[]")
    assert "--seed" in printed  # What was perhaps meant.


def test_a_misspelt_model_loads_nothing_heavy_and_is_answered():
    exit_code, modules, printed = loaded("train", "d", "--run", "r", "--model", "resnet5")
    assert (exit_code, modules) == (2, "[]")
    assert "did you mean ResNet50 or" in printed


def test_ingest_never_loads_tensorflow(tmp_path):
    # The whole package, and a command that does its work.
    code = (
        "import importlib, pkgutil, sys, shardstream.ingest as ingest\n"
        "for module in pkgutil.walk_packages(ingest.__path__, 'shardstream.ingest.'):\n"
        "    if not module.name.endswith('__main__'): importlib.import_module(module.name)\n"
        "from shardstream.ingest.__main__ import main\n"
        f"assert main(['verify', {str(tmp_path)!r}]) == 2\n"
        "print(sorted({'tensorflow', 'keras', 'tensorflow_datasets'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout == "[]\n", result.stderr


def test_nothing_private_of_tensorflow_is_used():
    sources = [path for package in COMMANDS for path in (ROOT / package).rglob("*.py")]
    private = ("tensorflow.python", "tf.__internal__", "keras.src")
    assert [str(path) for path in sources if any(name in path.read_text("utf-8") for name in private)] == []
