"""Predictions from Python are those of the command, whatever form an image comes in and however many threads ask."""

import csv
import io
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import shardstream
from shardstream.predict.__main__ import main

ROOT = Path(__file__).resolve().parents[3]
CLASS_NAMES = ("food", "interior", "exterior")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photos of several formats and shapes, one of which lies on its side by EXIF."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = rng.integers(0, 200, (40 + number, 61, 3)).astype(np.uint8)
        pixels[..., number % 3] |= 128
        exif = Image.Exif()
        exif[0x0112] = 6 if number % 8 == 0 else 1
        Image.fromarray(pixels).save(folder / f"{number:02d}.{('jpg', 'png', 'webp')[number % 3]}", exif=exif)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def of_command(trial, photos, tmp_path_factory):
    """What the command writes of these photos: the probabilities as text."""
    out = tmp_path_factory.mktemp("out") / "report"
    assert main([str(trial.run), *map(str, photos), "--out", str(out)]) == 0
    with (out / "predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def check(predictions, rows):
    for found, row in zip(predictions, rows, strict=True):
        assert found.class_name == row["predicted"]
        assert f"{found.probability:.6f}" == row["probability"]
        assert list(found.probabilities) == list(CLASS_NAMES)
        for name, value in found.probabilities.items():
            assert f"{value:.6f}" == row[f"probability_{name}"]


def test_paths_and_bytes_give_what_the_command_writes(trial, photos, of_command):
    classifier = shardstream.load_classifier(trial.run)
    assert tuple(classifier.class_names) == CLASS_NAMES
    check(classifier.predict(photos), of_command)
    check(classifier.predict(map(str, photos)), of_command)
    check(classifier.predict([path.read_bytes() for path in photos]), of_command)
    check(classifier.predict(str(photos[3])), of_command[3:4])
    assert classifier.predict([]) == []


def test_pixels_give_what_a_lossless_file_of_them_gives(trial, photos):
    classifier = shardstream.load_classifier(trial.run)
    pixels = [np.asarray(Image.open(path).convert("RGB")) for path in photos[1:4]]
    files = []
    for image in pixels:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        files.append(buffer.getvalue())
    assert classifier.predict(pixels) == classifier.predict(files)
    assert classifier.predict(np.stack([pixels[0]] * 2)) == classifier.predict([files[0]] * 2)


def test_many_threads_may_ask_at_once(trial, photos, of_command):
    classifier = shardstream.load_classifier(trial.run)
    wanted = classifier.predict(photos)
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda start: classifier.predict(photos[start : start + 5]), range(0, 40, 1))
        )
    for start, found in enumerate(answers):
        assert [one.class_name for one in found] == [one.class_name for one in wanted[start : start + 5]]
        np.testing.assert_allclose(
            [one.probability for one in found],
            [one.probability for one in wanted[start : start + 5]],
            atol=1e-6,
        )


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (b"no image", r"image 1: .*no"),
        ("no/such.jpg", r"no/such.jpg: cannot be read: No such file"),
        (np.zeros((4, 4), np.uint8), r"image 1: expected RGB pixels, uint8 .*, got uint8 \[4, 4\]"),
        (np.zeros((4, 4, 3), np.float32), r"image 1: expected RGB pixels, uint8 .*, got float32"),
    ],
)
def test_what_is_no_image_is_named(trial, photos, image, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        shardstream.load_classifier(trial.run).predict([photos[0], image])
    assert isinstance(caught.value, shardstream.DatasetError)


def test_evaluate_gives_the_figures_of_the_command_and_writes_nothing(trial, tmp_path):
    import json

    before = sorted(trial.run.rglob("*"))
    report = shardstream.evaluate(trial.run, trial.data, gallery=0)
    assert sorted(trial.run.rglob("*")) == before
    assert report.out is None
    assert main([str(trial.run), str(trial.data), "--all", "--gallery", "0", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    changing = {"command", "created"}
    assert {k: v for k, v in written.items() if k not in changing} == json.loads(
        json.dumps({k: v for k, v in report.metrics.items() if k not in changing})
    )
    assert report.summary.accuracy.value == pytest.approx(72 / 81)
    assert shardstream.evaluate(trial.run, trial.data, batch=1).summary.num_examples == 32
    assert shardstream.evaluate(trial.run, trial.data, sample=10, seed=3).summary.num_examples == 10


def example_of(heading):
    """The Python code of a section of docs/api.md."""
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8").split(f"## {heading}\n")[1]
    found = re.search(r"```py\n(.*?)```", text, re.DOTALL)
    assert found
    return found[1]


def test_the_web_service_of_the_documents_is_short_and_works(trial, photos, of_command, monkeypatch):
    code = example_of("A web service")
    assert len(code.splitlines()) <= 15
    pytest.importorskip("fastapi")
    testclient = pytest.importorskip("fastapi.testclient")
    monkeypatch.chdir(trial.run.parent)
    names: dict = {}
    exec(code.replace("runs/first", str(trial.run)), names)
    with testclient.TestClient(names["app"]) as client:
        answer = client.post("/classify", content=photos[2].read_bytes())
        assert answer.status_code == 200
        assert answer.json()["class_name"] == of_command[2]["predicted"]
        assert f"{answer.json()['probability']:.6f}" == of_command[2]["probability"]
        refused = client.post("/classify", content=b"no image")
        assert refused.status_code == 422
        assert "image 0" in refused.json()["detail"]


def test_a_pipe_is_not_waited_for(trial, tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg: cannot be read: not a regular file"):
        shardstream.load_classifier(trial.run).predict([tmp_path / "a.jpg"])
