import dataclasses
import errno
import hashlib
import os

import numpy as np
import pytest

from shardstream.ingest.common.errors import MachineError
from shardstream.ingest.dataset.records import decode_example, read_records
from shardstream.ingest.images.settings import ImageSettings, ProcessingSettings
from shardstream.ingest.pipeline import map_tasks
from shardstream.ingest.pipeline.map_tasks import MapPlan, process_task
from shardstream.ingest.pipeline.results import OK, REJECTED, UNCHANGED, TaskResults
from shardstream.ingest.pipeline.scan import scan_folder

JUDGING = ProcessingSettings(
    image=ImageSettings(size=None, resize="stretch", encoding="jpeg", quality=95),
    check="full",
    max_pixels=10**6,
)


def plan(photos, folder, **changes):
    listing = scan_folder(photos)
    options = {"rows": np.arange(len(listing), dtype=np.uint32), "judging": JUDGING} | changes
    return MapPlan(listing, folder=folder, **options)


def verdicts(unit):
    return TaskResults.load(unit.verdicts_path)


def test_every_file_is_in_one_unit_and_units_are_neither_small_nor_large(tmp_path):
    for number in range(1000):
        path = tmp_path / f"photos/c{number % 2}/{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if number % 10 == 0:
            with path.open("r+b") as file:
                file.truncate(1 << 20)
    units = list(plan(tmp_path / "photos", tmp_path))
    assert sorted(path for unit in units for path in unit.paths) == sorted(
        f"c{number % 2}/{number}.jpg" for number in range(1000)
    )
    assert all(len(unit.paths) <= 256 and sum(unit.sizes) <= 5 << 20 for unit in units)
    assert len(units) < 30


def test_a_unit_is_named_for_all_that_decides_it(photos, tmp_path):
    def name(**changes):
        return plan(photos, tmp_path, **changes)[0].name

    before = name()
    assert name() == before
    assert name(judging=dataclasses.replace(JUDGING, max_pixels=5)) != before
    assert name(judging=dataclasses.replace(JUDGING, check="header")) != before
    assert name(known=np.ones((60, 4), np.uint64)) != before
    (photos / "food/0.jpg").rename(photos / "food/00.jpg")
    assert name() != before


def test_pictures_and_verdicts_of_a_unit_belong_together(photos, tmp_path):
    (photos / "food/text.jpg").write_bytes(b"text")
    (unit,) = plan(photos, tmp_path)
    assert process_task(unit) == (61, sum(unit.sizes), 1)
    table = verdicts(unit).table
    with unit.pictures_path.open("rb") as file:
        examples = {record.offset: decode_example(record.payload) for record in read_records(file)}
    assert len(examples) == 60
    for path, label, row in zip(unit.paths, unit.labels, table, strict=True):
        content = (photos / path).read_bytes()
        assert row["digest"].astype(">u8").tobytes() == hashlib.sha256(content).digest()
        if path == "food/text.jpg":
            assert (row["verdict"], row["num_bytes"]) == (REJECTED, 0)
            assert verdicts(unit).reasons[row["reason"]].startswith("not an image")
        else:
            assert examples[int(row["offset"])]["image/filename"].decode() == path
            assert (examples[int(row["offset"])]["image"], row["verdict"]) == (content, OK)
            assert examples[int(row["offset"])]["label"] == label


def test_what_is_done_is_not_done_again(photos, tmp_path):
    (unit,) = plan(photos, tmp_path)
    process_task(unit)
    for path in photos.rglob("*.jpg"):
        path.unlink()
    assert process_task(unit).num_rejected == 0


@pytest.mark.parametrize("suffix", ["pictures", "verdicts"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "zeros", "foreign"])
def test_what_a_power_cut_left_is_done_again(photos, tmp_path, suffix, damage):
    (unit,) = plan(photos, tmp_path / "units")
    process_task(unit)
    path = unit.pictures_path.with_suffix(f".{suffix}")
    before = path.read_bytes()
    (photos / "food/0.jpg").write_bytes((photos / "food/1.jpg").read_bytes())
    (other,) = plan(photos, tmp_path / "others")
    process_task(other)
    (photos / "food/0.jpg").unlink()
    (photos / "interior").rename(tmp_path / "interior")
    if damage == "gone":
        path.unlink()
    else:
        foreign = other.pictures_path.with_suffix(f".{suffix}").read_bytes()
        half = len(before) // 2
        damaged = {
            "empty": b"",
            "cut": before[:half],
            "zeros": before[:half] + bytes(half),
            "foreign": foreign,
        }
        path.write_bytes(damaged[damage])
    with pytest.raises(MachineError, match="disappeared"):  # It looks for the photos again.
        process_task(unit)


def test_what_could_not_be_read_is_tried_again(photos, tmp_path):
    (unit,) = plan(photos, tmp_path)
    (photos / "food/0.jpg").rename(photos / "away")
    assert process_task(unit).num_rejected == 1
    (photos / "away").rename(photos / "food/0.jpg")
    assert process_task(unit).num_rejected == 0


def test_a_category_that_goes_away_is_not_taken_for_rejected_photos(photos, tmp_path):
    (unit,) = plan(photos, tmp_path)
    (photos / "food").rename(photos / "away")
    with pytest.raises(MachineError, match="photos/food: disappeared while it was read"):
        process_task(unit)
    assert not unit.verdicts_path.exists()


def test_a_content_that_is_known_is_not_judged_again(photos, tmp_path):
    known = np.zeros((60, 4), np.uint64)
    listing = scan_folder(photos)
    for row in (3, 50):
        content = (photos / listing.path(row)).read_bytes()
        known[row] = np.frombuffer(hashlib.sha256(content).digest(), ">u8")
    known[7] = 1
    (unit,) = plan(photos, tmp_path, known=known)
    process_task(unit)
    assert np.flatnonzero(verdicts(unit).table["verdict"] == UNCHANGED).tolist() == [3, 50]
    assert set(verdicts(unit).table["verdict"].tolist()) == {OK, UNCHANGED}


def test_files_that_kill_their_process_are_rejected_unopened_and_the_others_kept(photos, tmp_path):
    (unit,) = plan(photos, tmp_path)
    paths = {"food/3.jpg", "food/4.jpg", "interior/19.jpg"}
    for path in paths:
        (photos / path).unlink()
    crashing = frozenset(unit.paths.index(path) for path in paths)
    assert process_task(dataclasses.replace(unit, crashing=crashing)).num_rejected == 3
    rejected = np.flatnonzero(verdicts(unit).table["verdict"] == REJECTED)
    assert {unit.paths[row] for row in rejected} == paths
    assert {verdicts(unit).reasons[r] for r in verdicts(unit).table["reason"][rejected]} == {
        "kills or hangs its decoder"
    }


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENOMEM])
def test_an_error_of_the_machine_is_no_verdict(photos, tmp_path, monkeypatch, number):
    """As a disk or a server gives it that fails for good."""
    tries = fail_reading(monkeypatch, "food/3.jpg", number, num_times=10**6)
    (unit,) = plan(photos, tmp_path)
    with pytest.raises(MachineError, match=r"food/3\.jpg: .*run the same command again"):
        process_task(unit)
    assert len(tries) == 4
    assert not unit.verdicts_path.exists()
    monkeypatch.undo()
    assert process_task(unit).num_rejected == 0


def test_an_error_of_the_machine_that_passes_leaves_no_trace(photos, tmp_path, monkeypatch):
    tries = fail_reading(monkeypatch, "food/3.jpg", errno.EIO, num_times=2)
    (unit,) = plan(photos, tmp_path)
    assert process_task(unit).num_rejected == 0
    assert len(tries) == 3


def fail_reading(monkeypatch, name, number, *, num_times):
    from shardstream.ingest.common import prefetch, retries

    read, tries = prefetch.read_regular, []

    def read_with_errors(path, **options):
        if str(path).endswith(name):
            tries.append(path)
            if len(tries) <= num_times:
                raise OSError(number, os.strerror(number))
        return read(path, **options)

    monkeypatch.setattr(prefetch, "read_regular", read_with_errors)
    monkeypatch.setattr(retries.time, "sleep", lambda secs: None)
    return tries


def test_a_unit_of_other_versions_has_another_name(photos, tmp_path, monkeypatch):
    before = plan(photos, tmp_path)[0].name
    monkeypatch.setattr(map_tasks, "writer_versions", lambda: {"pillow": "1.0"})
    assert plan(photos, tmp_path)[0].name != before


def test_a_planted_log_of_attempts_is_not_written_through(photos, tmp_path):
    (unit,) = plan(photos, tmp_path / "units")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    unit.attempts_path.parent.mkdir(parents=True)
    unit.attempts_path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        process_task(unit)
    assert victim.read_text() == "precious"
