import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from scripts.faults import corruptions as faults_damages
from scripts.faults import disk as faults_disk
from scripts.faults import ingest as fault_ingest
from scripts.faults import jobs as faults_jobs
from scripts.faults import stops as faults_stops
from scripts.faults import updates as fault_updates


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "photos"
    for label, category in enumerate(("exterior", "food", "interior")):
        (folder / category).mkdir(parents=True)
        for number in range(40):
            coarse = np.random.default_rng([label, number]).integers(0, 256, (6, 8, 3), np.uint8)
            cv2.imwrite(str(folder / category / f"{number}.jpg"), cv2.resize(coarse, (160, 120)))
    return folder


@pytest.fixture(scope="module")
def scene(photos, tmp_path_factory) -> faults_jobs.Scene:
    return faults_jobs.make_scene(photos, tmp_path_factory.mktemp("scene"), workers=2)


def table(printed: str) -> list[dict[str, str]]:
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("campaign", "column"),
    [
        (fault_ingest.kills, "killed"),
        (fault_ingest.terms, "stopped"),
        (fault_ingest.disk_full, "out of space"),
    ],
)
def test_a_campaign_disturbs_as_often_as_asked(scene, capsys, campaign, column):
    rounds = fault_ingest.Rounds(scene, seed=2)
    figures = campaign(rounds, 3)
    assert rounds.failures == []
    rows = table(capsys.readouterr().out)
    assert rows[-1][column] == "all"
    assert int(rows[-1]["all"]) >= 3
    assert sum(sum(row.values()) for row in figures["counts"].values()) == int(rows[-1]["all"])
    assert figures.get("slowest_secs", 0) >= 0


@pytest.mark.slow
def test_the_command_prints_a_table_and_a_line_and_leaves_nothing(photos, tmp_path):
    command = [
        sys.executable,
        "-m",
        fault_ingest.__name__,
        "damages",
        photos,
        "--folder",
        tmp_path,
        "--count",
        4,
    ]
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=200)
    assert (result.returncode, result.stderr) == (0, "")
    assert not list(tmp_path.iterdir())
    figures = json.loads(result.stdout.splitlines()[-1])
    assert (figures["campaign"], figures["rounds"], figures["failures"]) == ("Damages", 4, [])
    rows = table(result.stdout)
    assert {row["damaged by"] for row in rows} == {*figures["counts"], "all"}
    assert int(rows[-1]["all"]) >= 4


@pytest.mark.parametrize("job", [faults_jobs.BUILD, faults_jobs.UPDATE])
def test_a_half_made_dataset_is_noticed(scene, tmp_path, job):
    data = scene.prepare(job, tmp_path / "round")
    if job == faults_jobs.UPDATE:
        faults_stops.check_between(scene, job, data)
        shutil.rmtree(data)
        with pytest.raises(faults_jobs.FaultError, match="the old dataset is gone"):
            faults_stops.check_between(scene, job, data)
    shutil.copytree(scene.reference, data)
    faults_stops.check_between(scene, job, data)
    (data / "features.json").unlink()
    with pytest.raises(faults_jobs.FaultError, match="half-made"):
        faults_stops.check_between(scene, job, data)
    if job == faults_jobs.BUILD:
        with pytest.raises(faults_jobs.FaultError, match="other bytes after the build"):
            faults_stops.finish(scene, job, data)


def test_a_process_that_stays_is_noticed():
    with subprocess.Popen(["sleep", "100"], start_new_session=True) as process:
        with pytest.raises(faults_jobs.FaultError, match="1 processes are left"):
            faults_jobs.check_none_left(process.pid, 0.1)
        assert process.wait() == -9
    faults_jobs.check_none_left(process.pid, 0.1)


def test_phases_are_told_by_the_folders_of_a_job(scene, tmp_path):
    data = scene.prepare(faults_jobs.UPDATE, tmp_path / "round")
    place = data.with_name("d.incomplete")
    (place / "dataset").mkdir(parents=True)
    (place / "units").mkdir()
    assert scene.phase(faults_jobs.UPDATE, data) == "start"
    (place / "units/00").mkdir()
    assert scene.phase(faults_jobs.UPDATE, data) == "map"
    (place / "dataset/d-train.tfrecord-00000-of-00001.part").touch()
    assert scene.phase(faults_jobs.UPDATE, data) == "reduce"
    (place / "dataset/manifest.parquet").touch()
    assert scene.phase(faults_jobs.UPDATE, data) == "finish"
    shutil.rmtree(place)
    shutil.rmtree(data)
    shutil.copytree(scene.reference, data)
    assert scene.phase(faults_jobs.UPDATE, data) == "finish"
    assert scene.phase(faults_jobs.BUILD, data) == "finish"
    # Undisturbed, a job goes through all of them.
    assert set(scene.secs[faults_jobs.BUILD]) == set(faults_jobs.PHASES)


def test_the_update_has_new_changed_renamed_and_removed_photos_to_do_with(scene, photos):
    older = scene.folder / "older_photos"
    before = {path.relative_to(older): path.read_bytes() for path in older.rglob("*.jpg")}
    now = {path.relative_to(photos): path.read_bytes() for path in photos.rglob("*.jpg")}
    assert now.keys() - before.keys()
    assert before.keys() - now.keys()
    assert any(before[path] != now[path] for path in now.keys() & before.keys())
    assert faults_jobs.contents(scene.old) != faults_jobs.contents(scene.reference)


@pytest.mark.parametrize("kind", faults_damages.DAMAGES)
def test_each_kind_of_damage_damages(scene, tmp_path, kind):
    foreign = scene.old  # Any other dataset.
    reference = faults_jobs.contents(scene.reference)
    assert len(list(scene.reference.glob("*.tfrecord-*"))) >= 4
    for number in range(8):
        data = shutil.copytree(scene.reference, tmp_path / str(number))
        faults_damages.DAMAGES[kind](faults_damages.Victim(data, foreign, random.Random(number)))
        assert faults_jobs.contents(data) != reference


def test_damage_that_is_not_found_or_not_mended_is_noticed(scene, tmp_path, monkeypatch):
    foreign = scene.old
    monkeypatch.setattr(faults_damages, "_by_library", lambda *_: ({"features.json"}, True))
    with pytest.raises(faults_jobs.FaultError, match="changed were"):
        faults_damages.damage_round(scene, foreign, tmp_path / "d1", 1, random.Random(3))
    monkeypatch.setattr(faults_damages, "_damage", lambda victim: (faults_damages.swap(victim), ("swap",))[1])
    names = {path.name for path in scene.reference.glob("*.tfrecord-*")}
    for found, is_mended in ((names, True), (set(), False)):
        monkeypatch.setattr(faults_damages, "_by_library", lambda *_, answer=(found, is_mended): answer)
        with pytest.raises(faults_jobs.FaultError):
            faults_damages.damage_round(scene, foreign, tmp_path / "d2", 1, random.Random(3))


@pytest.mark.slow
def test_without_mounts_the_size_of_files_stands_in_for_the_disk(scene, tmp_path):
    disk = faults_disk.FileSizes(tmp_path)
    log = tmp_path / "stderr"
    write = [
        sys.executable,
        "-c",
        f"import pathlib; pathlib.Path({str(tmp_path / 'f')!r}).write_bytes(bytes(5000))",
    ]
    assert disk.run(write, 4000, log) == 1
    assert disk.sentence in log.read_text()
    assert disk.used() == 4000
    assert disk.run(write, 6000, log) == 0
    needs = {
        job: faults_disk.measure_need(scene, disk, job) for job in (faults_jobs.BUILD, faults_jobs.UPDATE)
    }
    rng = random.Random(1)
    results = [faults_disk.full_disk_round(scene, disk, needs, f"r{number}", rng) for number in range(2)]
    assert any(results)


def test_a_broken_promise_is_named_and_its_folder_kept(scene, capsys):
    rounds = fault_ingest.Rounds(scene, seed=1)

    def one(folder, number, rng):
        folder.mkdir()
        if number == 1:
            raise faults_jobs.FaultError("this one")
        return [number]

    assert rounds.run(one, 4) == [0, 2, 3, 4]
    assert rounds.failures == ["round_0001: this one"]
    assert [path.name for path in scene.folder.glob("round_*")] == ["round_0001"]
    assert capsys.readouterr().err == "round_0001: this one\n"


@pytest.mark.slow
def test_updates_come_to_the_bytes_of_builds_after_random_changes(tmp_path):
    fault_updates.run_chain(tmp_path / "chain", random.Random(1), 2, workers=2)


def test_an_update_of_other_bytes_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(fault_updates, "run_to_end", lambda command, _: Path(command[5]).mkdir(exist_ok=True))
    monkeypatch.setattr(fault_updates, "contents", lambda folder: {"index.npy": str(folder)})
    with pytest.raises(faults_jobs.FaultError, match=r"other bytes than a build: index\.npy"):
        fault_updates.run_chain(tmp_path / "chain", random.Random(1), 1, workers=1)
