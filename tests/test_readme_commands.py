"""The commands of the README run in their order in one clean folder, then its Python and that of docs/formats.md."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


def code_blocks(name: str, language: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def draw_images(root: Path) -> None:
    random = np.random.default_rng(0)
    for label, name in enumerate(("food", "interior", "exterior")):
        (root / "photos" / name).mkdir(parents=True)
        for number in range(20):
            # A color for each class, so that a model tells them apart.
            pixels = random.integers(0, 90, (48, 64, 3)) + 150 * (np.arange(3) == label)
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(root / "photos" / name / f"{number}.jpg")
    (root / "more_photos").mkdir()
    image.save(root / "more_photos/unlabelled.jpg")
    image.save(root / "one.jpg")


def run(root: Path, *command: str) -> None:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "XDG_CACHE_HOME": str(root / "cache")}
    result = subprocess.run(
        [sys.executable, *command], cwd=root, capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, (command, result.stdout[-500:] + result.stderr[-3000:])


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("readme")
    draw_images(root)
    lines = "".join(code_blocks("README.md", "sh")).splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("shardstream-")]
    assert len(commands) > 8
    for program, *arguments in commands:
        if program == "shardstream-train" and "--run" in arguments:
            # The default may train a network of its own as well, which takes minutes.
            arguments += ["--model", "lite0"]
        run(root, "-m", program.replace("-", "."), *arguments)
    return root


def test_the_commands_write_what_the_readme_names(root):
    for name in ("index.html", "predictions.parquet", "findings.csv", "metrics.json"):
        assert (root / "runs/first/report" / name).exists()
    for name in ("model.tflite", "labels.json"):
        assert (root / "runs/first/export/tflite" / name).exists()


@pytest.mark.parametrize("name", ["README.md", "docs/formats.md"])
def test_the_python_runs(root, name):
    blocks = code_blocks(name, "python")
    assert blocks
    script = root / "snippets.py"
    script.write_text("\n\n".join(blocks), encoding="utf-8")
    run(root, script.name)


def test_the_readme_is_short():
    for name in ("README.md", "README.ko.md"):
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= 200
