"""Folders and photos whose names try to be HTML, formulas, orders to a terminal: the whole way, by every command."""

import csv
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import shardstream.ingest.__main__
import shardstream.predict.__main__
import shardstream.train.__main__
from shardstream.ingest.common.terminal import escape_control_chars
from shardstream.ingest.dataset.metadata import DatasetInfo

CLASSES = (
    "<script>alert(1)<!--",
    "=1+1",
    "\u202egpj.exe \"quoted' [red]",
    "\x1b[31m\x9b31m\a",
    "긴" * 60 + "x" * 20,  # 200 bytes.
)
PHOTOS = (
    "=cmd|' !A1.jpg",
    "@SUM(1)\n\r\t.jpg",
    "\x1b]0;title\x07.jpg",
    "</script><script>alert(2)</script .jpg".replace("/", "∕"),
)
COMMANDS = {
    "ingest": shardstream.ingest.__main__.main,
    "train": shardstream.train.__main__.main,
    "predict": shardstream.predict.__main__.main,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("hostile") / "\x1b[2J\u202eroot"
    rng = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        folder = root / "photos" / name
        folder.mkdir(parents=True)
        for photo in (*PHOTOS, "a.png", "b.png", "c.png", "d.png"):
            pixels = np.clip(rng.integers(0, 90, (16, 16, 3)) + 30 * number, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / photo, "PNG")
        (folder / "broken\x1b[31m.jpg").write_bytes(b"\x1b[31mnot a photo")
    return root


@pytest.fixture
def call(root, capsys):
    """Runs a command, ensures that nothing it prints acts on a terminal, and returns code and output."""

    def call(program: str, *arguments: object) -> tuple[int, str]:
        code = COMMANDS[program]([*map(str, arguments)])
        out, err = capsys.readouterr()
        for line in (out + err).split("\n"):
            assert escape_control_chars(line) == line
        return code, out + err

    return call


def test_names_do_no_harm_anywhere(root, call):
    photos, data, run = root / "photos", root / "data", root / "run"
    build = ["ingest", "build", photos, data, "--image-size", 16, "--max-rejected", 1]
    assert call(*build, "--dry-run")[0] == 0
    code, printed = call(*build)
    assert code == 0
    assert r"broken\x1b[31m.jpg" in printed
    assert "[red]" in printed  # Not parsed as markup.
    code, printed = call("ingest", "info", data, "--json")
    assert tuple(sorted(json.loads(printed)["class_names"])) == tuple(sorted(CLASSES))
    assert call("ingest", "build", photos, root / "other", "--class-names", *CLASSES[:4])[0] == 2

    assert call("train", data, "--run", run, "--image-size", 16, "--epochs", 1, "--batch-size", 4)[0] == 0
    assert call("train", "status", run)[0] == 0
    assert call("train", data, "--run", run)[0] == 2  # It names the run folder.

    assert call("predict", run, data, "--all")[0] == 0
    report = run / "report"
    check_page((report / "index.html").read_text(encoding="utf-8"))
    check_table(report / "predictions.csv")
    assert call("predict", run, data, "--all", "--json")[0] == 0
    # Names of classes are in no file's name.
    assert all(re.fullmatch(r"[a-z_.]+", path.name) for path in report.rglob("*"))

    assert call("predict", run, photos, "--out", root / "loose")[0] == 0
    page = (root / "loose/index.html").read_text(encoding="utf-8")
    check_page(page)
    check_cells(root / "loose/predictions.csv")
    assert call("predict", run, photos, "--out", root / "loose", "--json")[0] == 0

    damage(DatasetInfo.load(data))
    assert call("ingest", "verify", data)[0] == 1
    assert call("ingest", "verify", data, "--json")[0] == 1
    assert call("predict", run, data, "--all")[0] == 2
    shutil.rmtree(photos / CLASSES[0])
    assert call("ingest", "repair", photos, data)[0] == 1


def check_page(page: str) -> None:
    assert "<script>alert" not in page
    assert "alert(1)" in page
    assert not set(page) & {"\x1b", "\x9b", "\a", "\u202e"}


def check_table(path: Path) -> None:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][0] == "record"
    assert len({len(row) for row in rows}) == 1
    assert "'=1+1" in [cell for row in rows for cell in row]
    check_cells(path)


def check_cells(path: Path) -> None:
    with path.open(encoding="utf-8-sig", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]


def damage(info: DatasetInfo) -> None:
    path = info.data_dir / info.splits["validation"].shards[0].filename
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.truncate(info.data_dir / info.splits["train"].shards[0].filename, 100)
