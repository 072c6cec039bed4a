import io
import itertools
import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from scripts.bench import ingest as bench_ingest
from scripts.bench import million as bench_million
from scripts.bench.peers import way
from shardstream.ingest.images.perceptual_hash import hash_rgb

CATEGORIES = ("exterior", "food", "interior")


def run_script(script: ModuleType, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", script.__name__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


def read_table(output: str) -> list[dict[str, str]]:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in output.splitlines()
        if line.startswith("|")
    ]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "photos"
    for label, category in enumerate(CATEGORIES):
        (folder / category).mkdir(parents=True)
        for number in range(3):
            (folder / category / f"{number}.jpg").write_bytes(bench_million.draw_photo(10 * label + number))
    return folder


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory) -> tuple[str, str, dict]:
    folder = tmp_path_factory.mktemp("work")
    result = run_script(
        bench_ingest,
        *(photos, "--count", 40, "--rounds", 2, "--only", "limit", "ours", "FFCV", "--folder", folder),
    )
    assert result.returncode == 0, result.stderr
    assert not list(folder.iterdir())
    return result.stdout, result.stderr, json.loads(result.stdout.splitlines()[-1])


@pytest.mark.slow
def test_each_way_has_a_row_with_its_share_of_the_limit(run):
    rows = {row["way"]: row for row in read_table(run[0])}
    limits = {
        "limit: read, SHA-256, CRC, write": None,
        "ours, original, --check header": "limit: read, SHA-256, CRC, write",
        "limit: read, decode": None,
        "ours, original, --check full": "limit: read, decode",
        "limit: read, decode, 300, encode": None,
        "ours, 300": "limit: read, decode, 300, encode",
    }
    assert list(rows) == list(limits)
    secs = run[2]["secs"]
    for name, limit in limits.items():
        assert rows[name]["of TFDS copying"] == ""
        if limit is None:
            assert rows[name]["of its limit"] == ""
        else:
            share = np.median(secs[limit]) / np.median(secs[name])
            assert float(rows[name]["of its limit"]) == pytest.approx(share, abs=0.006)


@pytest.mark.slow
def test_rates_are_those_of_the_medians(run):
    figures = run[2]
    assert {len(secs) for secs in figures["secs"].values()} == {2}
    for row in read_table(run[0]):
        median = np.median(figures["secs"][row["way"]])
        assert float(row["photos/s"].replace(",", "")) == pytest.approx(40 / median, rel=1e-3, abs=0.51)
    assert run[0].startswith("40 photos of ")


@pytest.mark.slow
def test_a_peer_without_its_python_is_left_out_with_a_word(run):
    assert "FFCV, 300: left out, see scripts/bench/peers/README.md" in run[1]
    assert not any("FFCV" in row["way"] for row in read_table(run[0]))


def test_a_way_that_fails_ends_the_run_and_says_why(photos, tmp_path):
    result = run_script(
        bench_ingest,
        *(photos, "--count", 4, "--only", "FFCV, 300", "--ffcv-python", sys.executable, "--folder", tmp_path),
    )
    assert result.returncode == 1
    assert "FFCV, 300: " in result.stderr
    assert "No module named 'ffcv'" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--only", "nothing"], "--only nothing: no way has that in its name"),
        (["--only", "limit"], "no JPEG in it; name a folder of category folders with photos"),
    ],
)
def test_wrong_input_is_told(tmp_path, arguments, sentence):
    result = run_script(bench_ingest, tmp_path, *arguments)
    assert result.returncode == 1
    assert sentence in result.stderr


def test_copies_of_photos_are_turned_and_mirrored_so_that_none_looks_like_another(photos, tmp_path):
    num_bytes = bench_ingest.make_photos(photos, tmp_path / "copies", 72)
    copies = sorted((tmp_path / "copies").rglob("*.jpg"))
    assert len(copies) == 72
    assert sum(path.stat().st_size for path in copies) == num_bytes
    hashes = [hash_rgb(pixels(path.read_bytes())) for path in copies]
    distances = [(one ^ other).bit_count() for one, other in itertools.combinations(hashes, 2)]
    assert min(distances) > 5
    for number, path in enumerate(sorted(photos.rglob("*.jpg"))):
        folder = tmp_path / "copies" / path.parent.name
        assert (folder / f"{number}.jpg").read_bytes() == path.read_bytes()
        turned = np.rot90(pixels(path.read_bytes()))
        np.testing.assert_allclose(pixels((folder / f"{number + 9}.jpg").read_bytes()), turned, atol=60)


def test_no_more_copies_than_ways_to_turn_them(photos, tmp_path):
    result = run_script(bench_ingest, photos, "--count", 73)
    assert result.returncode == 1
    assert "9 JPEGs are enough for --count 72 at most" in result.stderr


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("installed", [{"opencv-python"}, {"opencv-python-headless"}, set()])
def test_either_wheel_of_opencv_will_do(monkeypatch, installed):
    def version(name):
        if name not in installed:
            raise PackageNotFoundError(name)
        return "5.0"

    monkeypatch.setattr(way, "version", version)
    if installed:
        assert {way.opencv_wheel()} == installed
    else:
        with pytest.raises(PackageNotFoundError, match="opencv-python or opencv-python-headless"):
            way.opencv_wheel()


WORKER = """
import sys, time
while time.process_time() < 0.3:
    pass
"""
SERVER = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {WORKER!r}])
print(flush=True)
sys.stdin.read()
"""


def test_the_work_of_a_living_servers_dead_workers_is_counted():
    before = way.core_secs(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        server.stdout.readline()
        assert server.pid in list(way.family(os.getpid()))
        assert (
            way.core_secs(os.getpid()) - before >= 0.27
        )  # Counted in hundredths, for each of three processes.
        server.stdin.close()


def test_processes_that_exit_while_they_are_listed_are_left_out():
    forks = "while :; do (/bin/true) & (/bin/true; /bin/true) & wait; done"
    with subprocess.Popen(["sh", "-c", forks]) as shell:
        try:
            for _ in range(1000):
                members = list(way.family(shell.pid))
                assert members[0] == shell.pid
        finally:
            shell.kill()


@pytest.mark.slow
def test_no_two_tiny_photos_are_the_same(tmp_path):
    bench_million.draw_photos(tmp_path, 2500, workers=2)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == len({path.read_bytes() for path in files}) == 2500
    assert {path.relative_to(tmp_path).parts[0] for path in files} == {"food", "interior", "exterior"}
    assert max(len(list(path.parent.iterdir())) for path in files) == 1000


@pytest.mark.slow
def test_the_builds_of_many_photos_are_compared(tmp_path):
    result = run_script(bench_million, "--counts", 3000, 6000, "--folder", tmp_path)
    assert result.returncode == 0, result.stderr
    assert not list(tmp_path.iterdir())
    assert [(row["files"], row["stored"]) for row in read_table(result.stdout)] == [
        ("3,000", "3,000"),
        ("6,000", "6,000"),
    ]
    small, large = json.loads(result.stdout.splitlines()[-1])
    # A Python process with this program's libraries in it has at least 20 MB.
    assert min(small["parent_bytes"], small["worker_bytes"]) > 20e6
    growth = (large["parent_bytes"] - small["parent_bytes"]) / 3000
    assert f"Each file more takes {growth:.0f} bytes of the parent's memory" in result.stdout


def test_the_peak_of_a_process_stays_when_its_memory_is_given_back():
    script = "import sys; b = b'x' * (64 << 20); del b; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        assert bench_million.peak_bytes(process.pid) > 64 << 20
        process.stdin.close()
    assert bench_million.peak_bytes(process.pid) == 0
