"""The whole way, as a user goes it: photos, dataset, model, page, by the commands in processes of their own."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ROOT.parent / "shared/data/rooms3"
NAMES = ["--class-names", "food", "interior", "exterior", "--display-names", "음식", "실내", "실외"]


def run(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    # As a user's shell is: who sets this variable wants to see what TensorFlow says.
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-m", f"shardstream.{program}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


def succeed(program: str, *arguments: str | Path) -> dict:
    result = run(program, *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three categories that differ in their pattern, with some of what real folders hold as well."""
    root = tmp_path_factory.mktemp("whole_way")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :64]
    for name, stripes in (("food", (x + y) // 6 % 2), ("interior", y // 6 % 2), ("exterior", x // 6 % 2)):
        (root / "photos" / name).mkdir(parents=True)
        for number in range(40):
            light, dark = rng.integers(120, 256, 3), rng.integers(0, 120, 3)
            pixels = np.where(stripes[..., None], light, dark) + rng.normal(0, 12, (48, 64, 3))
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.save(root / "photos" / name / f"{number}.jpg")
    (root / "photos/food/1.jpg").rename(root / "photos/food/<script>alert(1)<!--.jpg")
    (root / "photos/food/again.jpg").write_bytes((root / "photos/food/0.jpg").read_bytes())
    (root / "photos/food/broken.jpg").write_bytes(b"not a photo")
    return root


def test_the_whole_way(root):
    data, runs = root / "data", root / "run"
    built = succeed("ingest", "build", root / "photos", data, *NAMES, "--image-size", "48")
    assert built["verdicts"] == {"ok": 120, "repaired": 0, "duplicate": 1, "conflict": 0, "rejected": 1}

    succeed("train", data, "--run", runs, "--epochs", "6", "--batch-size", "8")
    model = json.loads((runs / "model.json").read_text())
    assert (model["class_names"], model["image_size"]) == (["food", "interior", "exterior"], 48)
    assert model["dataset_fingerprint"] == built["fingerprint"]

    succeed("predict", runs, data, "--all")
    with (runs / "report/predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == built["splits"]["validation"]["num_examples"]
    # Three patterns are told apart by chance a third of the time.
    accuracy = np.mean([row["actual"] == row["predicted"] for row in rows])
    assert accuracy > 0.8
    page = (runs / "report/index.html").read_text(encoding="utf-8")
    assert "음식" in page
    assert "<script>alert" not in page

    compares_with_another_run(root)
    predicts_loose_photos(root)
    refuses_other_classes(root)


def compares_with_another_run(root: Path) -> None:
    options = ["--model", "small", "--epochs", "1", "--batch-size", "8", "--image-size", "32"]
    succeed("train", root / "data", "--run", root / "second", *options)
    compare = ["--all", "--compare", root / "second", "--out", root / "compared"]
    metrics = succeed("predict", root / "run", root / "data", *compare)
    (other,) = metrics["comparisons"]
    assert (other["name"], other["num_right"]) == ("second", metrics["num_right"])
    assert other["num_right_other"] == other["num_right"] + other["num_fixes"] - other["num_regressions"]
    # Alone it says the same: its own size of pictures, and the same records.
    alone = succeed("predict", root / "second", root / "data", "--all")
    assert alone["num_right"] == other["num_right_other"]
    assert "<h3><bdi>second</bdi></h3>" in (root / "compared/index.html").read_text(encoding="utf-8")


def predicts_loose_photos(root: Path) -> None:
    metrics = succeed("predict", root / "run", root / "photos/interior", "--out", root / "loose")
    assert metrics["verdicts"] == {"ok": 40}
    assert metrics["predicted"]["interior"] > 30


def refuses_other_classes(root: Path) -> None:
    shutil.copytree(root / "photos/interior", root / "others/kitchen")
    shutil.copytree(root / "photos/exterior", root / "others/garden")
    succeed("ingest", "build", root / "others", root / "other_data", "--image-size", "48")
    result = run("predict", root / "run", root / "other_data")
    assert result.returncode == 2
    assert "'food', 'interior', 'exterior'" in result.stderr
    assert "'garden', 'kitchen'" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.skipif(not ROOMS.is_dir(), reason="the collection of real photos is not there")
def test_real_photos(tmp_path):
    built = succeed("ingest", "build", ROOMS, tmp_path / "data", *NAMES, "--image-size", "64")
    # One photo has an Adobe RGB profile.
    assert built["verdicts"] | {"ok": 737, "repaired": 1, "duplicate": 2} == built["verdicts"]
    assert built["verdicts"]["duplicate"] == 2
    succeed("train", tmp_path / "data", "--run", tmp_path / "run", "--model", "small", "--epochs", "4")
    metrics = succeed("predict", tmp_path / "run", tmp_path / "data", "--all")
    # Four epochs of small pictures; the full figure is in docs/benchmarks.md.
    assert metrics["accuracy"] > 0.6
