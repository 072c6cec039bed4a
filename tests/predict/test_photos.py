"""Loose photos: the model says what it says of the same photos in a dataset, and nothing of the user's changes."""

import csv
import json
import os
import re

import numpy as np
import pytest
from PIL import Image

import shardstream.ingest.__main__
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.predict.__main__ import main

CLASS_NAMES = ("food", "interior", "exterior")


def snapshot(folder):
    """Returns all that can be seen of the files below a folder."""
    return {
        path: (path.is_dir() or path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode)
        for path in sorted(folder.rglob("*"))
        if not path.is_fifo()
    }


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photos of all kinds in folders of categories, some broken."""
    root = tmp_path_factory.mktemp("photos") / "photos"
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASS_NAMES):
        folder = root / name / "deep"
        folder.mkdir(parents=True)
        for number in range(14):
            pixels = rng.integers(0, 200, (20 + number, 34, 3)).astype(np.uint8)
            pixels[..., label] |= 128
            suffix = (".jpg", ".png", ".webp", ".bmp")[number % 4]
            exif = Image.Exif()
            exif[0x0112] = 6 if number % 8 == 0 else 1
            Image.fromarray(pixels).save(folder / f"{number}{suffix}", exif=exif.tobytes())
        (root / name / "small.png").write_bytes(b"")
        Image.fromarray(pixels[:8, :8]).save(
            root / name / "kept.png"
        )  # Of the model's size: its bytes are stored.
    (root / "food/broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (root / "food/notes.txt").write_text("no photo")
    (root / ".hidden.jpg").write_bytes(b"x")
    os.mkfifo(root / "food/pipe.jpg")  # Whoever reads it waits for ever.
    return root


def rows_of(out):
    with (out / "predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "settings",
    [
        "--image-size 8",
        "--image-size 8 --quality 30 --resize crop",
        "--image-size 8 --encoding raw",
        "--image-size 12 --encoding png --resize pad",
        "--image-size original",
    ],
)
def test_the_model_sees_what_it_sees_of_stored_records(photos, tmp_path, write_run, settings):
    data = tmp_path / "data"
    build = ["build", str(photos), str(data), "--class-names", *CLASS_NAMES, *settings.split()]
    assert shardstream.ingest.__main__.main([*build, "--max-rejected", "1", "--validation", "0.5"]) == 0
    run = write_run(tmp_path / "run", DatasetInfo.load(data))

    before = snapshot(photos)
    assert main([str(run), str(photos), "--out", str(tmp_path / "loose")]) == 0
    assert snapshot(photos) == before
    loose = {row["source_sha256"]: row for row in rows_of(tmp_path / "loose") if row["predicted"]}
    compared = 0
    for split in ("train", "validation"):
        out = tmp_path / split
        assert main([str(run), str(data), "--all", "--no-explain", "--split", split, "--out", str(out)]) == 0
        for stored in rows_of(out):
            row = loose[stored["source_sha256"]]
            assert row["source_path"] == str(photos / stored["source_path"])
            for column in ("predicted", "probability", *(f"probability_{name}" for name in CLASS_NAMES)):
                assert row[column] == stored[column]
            compared += 1
    assert compared == len(loose) == 45


def test_every_file_has_its_row_in_order_with_its_verdict(trial, photos, tmp_path, capsys):
    out = tmp_path / "out"
    paths = [
        photos / "exterior",
        photos / "food/deep/0.jpg",
        photos / "food/broken.jpg",
        photos / "food/pipe.jpg",
    ]
    assert main([str(trial.run), *map(str, paths), "--out", str(out), "--lang", "ko"]) == 0
    rows = rows_of(out)
    below = sorted(str(path) for path in (photos / "exterior").rglob("*") if path.is_file())
    assert sorted(row["source_path"] for row in rows[:-3]) == below
    assert [row["source_path"] for row in rows[-3:]] == [str(path) for path in paths[1:]]
    assert [(row["verdict"], row["reason"][:12]) for row in rows[-3:]] == [
        ("repaired", "turned uprig"),
        ("rejected", "corrupt JPEG"),
        ("rejected", "cannot be re"),
    ]
    assert {row["predicted"] for row in rows if row["verdict"] == "rejected"} == {""}
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["num_files"] == len(rows) == 19
    assert sum(metrics["predicted"].values()) == 16
    page = (out / "index.html").read_text(encoding="utf-8")
    assert '<html lang="ko">' in page
    assert page.count('class="card"') == 16
    assert "거절된 파일" in page
    assert str(photos / "food/broken.jpg") in page
    assert not re.search(r"https?://", page.replace("http://www.w3.org", ""))
    printed = capsys.readouterr().out
    assert f"rejected: {photos / 'food/pipe.jpg'}: cannot be read: not a regular file" in printed
    assert "19 files: " in printed
    shares = [f"{float(row['probability']):.1%}" for row in rows if row["probability"]]
    assert re.findall(r"\d+\.\d%", printed) == shares


def test_the_page_keeps_to_its_size_and_the_least_sure(trial, photos, tmp_path):
    assert main([str(trial.run), str(photos), "--out", str(tmp_path), "--gallery", "6"]) == 0
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    shown = set(re.findall(r'alt="([^"]+)"', page))
    for name in CLASS_NAMES:
        of_class = sorted(
            (float(row["probability"]), row["source_path"])
            for row in rows_of(tmp_path)
            if row["predicted"] == name
        )
        assert {path for _, path in of_class[:2]} <= shown
    assert len(shown) == 6


@pytest.mark.parametrize(("size", "shown"), [(1, 1), (4, 4), (20, 20), (0, 0)])
def test_the_gallery_is_a_maximum_and_is_filled(trial, photos, tmp_path, size, shown):
    # 15 of one class and one of another: what the one does not need the other one gets.
    paths = [str(photos / "food"), str(photos / "interior/deep/1.png"), str(photos / "exterior/deep/2.webp")]
    paths += [str(photos / "food/deep"), str(photos / "food/deep")]
    assert main([str(trial.run), *paths, "--out", str(tmp_path), "--gallery", str(size)]) == 0
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count('src="data:image/') == shown


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{photos}", "--out", "{photos}/food"], r"--out \S+/food: lies among the photos of \S+"),
        (
            ["{photos}/food/deep/0.jpg", "--out", "{photos}/food/deep"],
            r"--out \S+/deep: lies among the photos",
        ),
        (["{photos}", "--min-accuracy", "0.5"], r"--min-accuracy is for datasets, and \S+ holds photos"),
        (["{photos}", "--compare", "{run}2"], r"--compare is for datasets"),
        (["{photos}", "--batch", "1"], r"--batch is for datasets"),
        (["{photos}", "--split", "nosuch"], r"--split is for datasets"),
        (["{photos}", "--seed", "5"], r"--seed is for datasets"),
        (["{photos}", "--all"], r"--all is for datasets"),
        (["{photos}", "--no-explain"], r"--no-explain is for datasets"),
        (["{photos}", "{photos}/none.jpg"], r"\S+/none.jpg: no such file or folder"),
        (["{data}", "{photos}"], r"\S+: a dataset; give it alone, or photos without it"),
        (
            ["{photos}/food/broken.jpg"],
            r"\S+broken.jpg: corrupt JPEG",
        ),
    ],
)
def test_errors_are_one_sentence(trial, photos, tmp_path, capsys, arguments, sentence):
    before = snapshot(photos)
    places = {"photos": photos, "run": trial.run, "data": trial.data}
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "out")]
    assert main([str(trial.run), *(word.format(**places) for word in arguments), *out]) == 2
    assert re.fullmatch(rf"shardstream-predict: {sentence}[^\n]*\n", capsys.readouterr().err)
    assert snapshot(photos) == before


def test_a_run_inside_of_the_photos_writes_no_report_there(trial, photos, tmp_path, capsys):
    import shutil

    root = tmp_path / "all"
    shutil.copytree(trial.run, root / "run")
    Image.new("RGB", (20, 20)).save(root / "a.png")
    assert main([str(root / "run"), str(root)]) == 2
    assert "lies among the photos" in capsys.readouterr().err
    assert not (root / "run/report").exists()


def test_a_file_that_kills_its_decoder_costs_that_file_alone(monkeypatch, tmp_path):
    from concurrent.futures import BrokenExecutor

    from shardstream.ingest.execution import crashes
    from shardstream.ingest.pipeline import loose_photos as loose

    deaths = []

    def dies_at_one(function, chunk):
        if 1 not in chunk.crashing:
            deaths.append(chunk)
            chunk.log.write_bytes((1).to_bytes(8, "little"))
            raise BrokenExecutor
        return loose.JudgedChunk(chunk.number, [loose.JudgedPhoto(path, "", None) for path in chunk.paths])  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(crashes, "run_alone", dies_at_one)
    chunk = loose.Chunk(3, ["a", "killer", "b"], None, tmp_path / "log")  # pyright: ignore[reportArgumentType]
    chunk.log.write_bytes((1).to_bytes(8, "little"))
    done = loose._judge_alone(chunk)
    assert (done.number, len(done.photos), len(deaths)) == (3, 3, 1)


def test_names_that_are_not_utf8_are_predicted_and_written(trial, photos, tmp_path, capsys):
    photo = tmp_path / os.fsdecode(b"\xbd\xbd.png")
    photo.write_bytes((photos / "food/kept.png").read_bytes())
    out = tmp_path / os.fsdecode(b"report_\xbd")
    assert main([str(trial.run), str(photo), "--out", str(out)]) == 0
    ((row,), metrics) = rows_of(out), json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert row["source_path"].endswith("\\xbd\\xbd.png")
    assert str(photo) in metrics["command"]
    assert "udcbd.png" in (out / "index.html").read_text(encoding="utf-8")
