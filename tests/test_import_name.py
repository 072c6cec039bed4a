"""One import name: nothing of a user's is imported in its place, and the package is usable from Python."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import shardstream

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("ingest", "train", "predict")
OWN_SCRIPT = 'print("the user\'s own script ran")\nraise SystemExit(7)\n'


@pytest.fixture
def folder_of_a_user(tmp_path: Path) -> Path:
    """A folder as people have them: their own train.py and predict.py, and a package called ingest."""
    for name in ("train", "predict"):
        (tmp_path / f"{name}.py").write_text(OWN_SCRIPT)
    (tmp_path / "ingest").mkdir()
    (tmp_path / "ingest/__init__.py").write_text(OWN_SCRIPT)
    (tmp_path / "ingest/__main__.py").write_text(OWN_SCRIPT)
    return tmp_path


@pytest.mark.parametrize("python_path", [None, "."])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("as_module", [False, True], ids=["script", "module"])
def test_a_users_own_scripts_are_not_run(folder_of_a_user, command, as_module, python_path):
    script = Path(sysconfig.get_path("scripts")) / f"shardstream-{command}"
    argv = [sys.executable, "-m", f"shardstream.{command}"] if as_module else [str(script)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if python_path:
        environment["PYTHONPATH"] = python_path
    result = subprocess.run(
        [*argv, "--help"], cwd=folder_of_a_user, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert f"shardstream-{command}" in result.stdout
    assert "own script" not in result.stdout + result.stderr


def test_a_checkout_of_the_same_name_does_not_hide_the_package(tmp_path):
    (tmp_path / "shardstream").symlink_to(ROOT)
    code = "import shardstream; print(shardstream.DatasetError.__module__)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.stdout == "shardstream.ingest.common.errors\n", result.stderr


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, shardstream\n"
        "print(sorted({'tensorflow', 'keras', 'cv2', 'matplotlib', 'pyarrow'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout == "[]\n", result.stderr


def test_a_dataset_is_built_and_loaded_from_python(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 20, 3), np.uint8)
    for number, image in enumerate(pixels):
        path = tmp_path / "photos" / ("food", "interior")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    built = shardstream.build_dataset(
        str(tmp_path / "photos"), tmp_path / "data", image_size=16, class_names=["interior", "food"]
    )
    assert built.class_names == ("interior", "food")
    loaded = shardstream.load_dataset(str(tmp_path / "data"))
    assert loaded.fingerprint == built.fingerprint
    assert sum(split.num_examples for split in loaded.splits.values()) == 24


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: shardstream.build_dataset("photos", "data", imagesize=300),
            "BuildConfig: unknown option 'imagesize'; did you mean 'image_size'?",
        ),
        (lambda: shardstream.train_and_evaluate(run="r"), "TrainConfig: missing option 'data_dir'"),
    ],
)
def test_options_that_cannot_be_used_are_named(call, sentence):
    with pytest.raises(shardstream.ConfigError) as raised:
        call()
    assert str(raised.value) == sentence
