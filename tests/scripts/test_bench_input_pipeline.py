import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import simplejpeg

from scripts.bench import input_pipeline as bench_input_pipeline
from scripts.bench import million as bench_million
from scripts.bench import stream as bench_stream
from scripts.bench.input_pipeline import COPY, DECODE, BenchConfig, Results, RunError, Way
from scripts.bench.peers import environments, large_photos, small_records
from shardstream.ingest.dataset.index import open_index, shard_rows
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.records import decode_example, read_records


def run_script(script: ModuleType, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", script.__name__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=400)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "photos"
    for label, category in enumerate(("exterior", "food")):
        (folder / category).mkdir(parents=True)
        for number in range(5):
            (folder / category / f"{number}.jpg").write_bytes(bench_million.draw_photo(10 * label + number))
    return folder


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory) -> tuple[list[list[str]], dict, Path]:
    inputs = tmp_path_factory.mktemp("inputs")
    result = run_script(
        bench_input_pipeline,
        *(photos, "--count", 70, "--rounds", 1, "--epochs", 3, "--inputs", inputs),
        *("--ways", "limit", "ours, --cache none"),
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("70 photos at 300x300 of ")
    rows = [line.strip("| ").split(" | ") for line in result.stdout.splitlines() if line.startswith("| ")]
    return rows, json.loads(result.stdout.splitlines()[-1]), inputs


@pytest.mark.slow
def test_each_way_has_a_row_with_its_shares_of_the_limits(run):
    rows, figures, _ = run
    assert [row[0] for row in rows] == ["way", DECODE, COPY, "ours, --cache none"]
    rates = figures["rates_and_core_ms"]
    for name in (DECODE, COPY, "ours, --cache none"):
        assert (len(rates[name]["first"]), len(rates[name]["later"])) == (1, 2)
    (first, _), *_ = rates["ours, --cache none"]["first"]
    limit = sum(rate for rate, _ in rates[DECODE]["later"]) / 2
    assert float(rows[3][3]) == pytest.approx(first / limit, abs=0.006)
    assert rows[3][-1] == "uint8"
    assert figures["pinned"]["ffcv"]
    assert figures["versions"]["tensorflow"]


@pytest.mark.slow
def test_the_files_are_the_pictures_of_the_dataset(run):
    inputs = run[2]
    info = DatasetInfo.load(inputs / "data")
    stored = []
    for shard in info.shards.values():
        with (inputs / "data" / shard.filename).open("rb") as file:
            examples = [decode_example(record.payload) for record in read_records(file)]
        stored += [(example["label"], example["image"]) for example in examples]
    files = [
        (int(path.parent.name.split("-")[0]), path.read_bytes()) for path in (inputs / "files").rglob("*.jpg")
    ]
    assert len(files) == 70
    assert sorted(files) == sorted(stored)


def test_inputs_of_another_count_are_refused(run, photos):
    result = run_script(bench_input_pipeline, photos, "--count", 71, "--inputs", run[2], "--ways", "limit")
    assert result.returncode == 1
    assert "was made with another --count" in result.stderr


def test_a_way_that_nobody_knows_is_told(tmp_path):
    result = run_script(bench_input_pipeline, tmp_path, "--ways", "nothing")
    assert (result.returncode, result.stderr) == (1, "--ways nothing: no way has that in its name\n")


def test_a_peer_that_cannot_be_installed_is_a_row_with_the_reason(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(environments.PINS, "peer", ("./nowhere",))
    with pytest.raises(environments.InstallError, match=r"^not installed: .*nowhere"):
        environments.python_of("peer", tmp_path)
    assert not (tmp_path / "peer" / "pins.txt").exists()  # The next run tries again.
    failed = Results()
    failed.failure = "not installed: a|b"
    bench_input_pipeline.print_table(BenchConfig(photos=tmp_path), 1000, {"peer": failed})
    assert "| peer | not installed: a/b |" in capsys.readouterr().out


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_the_reason_is_found_wherever_it_was_printed(stream):
    program = f"import sys; print('no ensurepip here', file=sys.{stream}); sys.exit(1)"
    with pytest.raises(environments.InstallError, match=r"^not installed: no ensurepip here$"):
        environments._run([sys.executable, "-c", program], "peer")


def test_an_environment_that_is_there_as_it_should_be_is_used(tmp_path, monkeypatch):
    monkeypatch.setitem(environments.PINS, "peer", ("./nowhere",))
    (tmp_path / "peer").mkdir()
    (tmp_path / "peer" / "pins.txt").write_text("./nowhere\n")
    assert environments.python_of("peer", tmp_path) == str(tmp_path / "peer" / "bin" / "python")


def test_a_program_that_fails_says_why(tmp_path):
    with pytest.raises(RunError, match=r"failed: .*nowhere\.py"):
        bench_input_pipeline.run(Way("x", ("nowhere.py",)), tmp_path, BenchConfig(photos=tmp_path))


def test_medians_of_first_and_later_epochs_are_kept_apart():
    results = Results()
    epochs = [{"pictures": 10, "secs": secs, "core_secs": 0.1} for secs in (10.0, 1.0, 2.0, 0.5)]
    results.add({"epochs": epochs, "dtype": "uint8"})
    assert (results.rate("first"), results.rate("later")) == (1.0, 10.0)
    assert results.core_ms("later") == pytest.approx(10.0)


def test_small_photos_become_large_ones(photos, tmp_path):
    large_photos.enlarge(photos, tmp_path, 2)
    contents = [path.read_bytes() for path in sorted(tmp_path.rglob("*.jpg"))]
    assert [simplejpeg.decode_jpeg_header(content)[:2] for content in contents] == [(3024, 4032)] * 2
    assert len(set(contents)) == 2


def test_datasets_of_small_records_are_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(small_records, "_RECORDS_PER_SHARD", 40)
    small_records.write_dataset(tmp_path / "data", 100)
    info = DatasetInfo.load(tmp_path / "data")
    assert [shard.num_examples for shard in info.shards.values()] == [40, 40, 20]
    for shard in info.shards.values():
        with (tmp_path / "data" / shard.filename).open("rb") as file:
            offsets = [record.offset for record in read_records(file)]
        assert shard_rows(open_index(info), info, shard.filename)["offset"].tolist() == offsets


@pytest.mark.slow
def test_the_memory_is_told_by_the_number_of_records(tmp_path):
    result = run_script(
        bench_stream, tmp_path, "--parts", "memory", "--small-counts", 320, 640, "--epochs", 2
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])["memory"]
    assert [(name, len(peaks)) for name, peaks in found.items()] == [("320", 2), ("640", 2)]
    assert min(min(peaks) for peaks in found.values()) > 50  # A Python with TensorFlow in it has far more.
