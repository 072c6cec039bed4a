import errno
import logging
import os
import threading

import pytest

from shardstream.ingest.common.atomic_io import fsync_folder_contents
from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.common.locks import lock_file
from shardstream.ingest.pipeline import staging
from shardstream.ingest.pipeline.staging import open_repair_place, open_staging

TASK = f"{0:032x}.verdicts"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("is_update", [False, True])
def test_what_workers_of_another_run_write_does_not_get_into_the_dataset(tmp_path, is_update):
    data = tmp_path / "d"
    if is_update:
        data.mkdir()
        (data / "old").touch()
    with pytest.raises(RuntimeError), open_staging(data, {}) as place:
        killed = place
        (killed.units / TASK).touch()
        raise RuntimeError
    with open_staging(data, {}) as place:
        with pytest.raises(FileNotFoundError):
            (killed.shards / "d-train.tfrecord-00000-of-00001").write_text("by a worker that was not told")
        (place.shards / "d-train.tfrecord-00000-of-00001").write_text("whole")
        place.take("d-train.tfrecord-00000-of-00001")
        (place.shards / "d-train.tfrecord-00000-of-00001.0123456789ab.part").write_text("half")
        (place.dataset / "metadata.json").write_text("whole")
        place.replace(["old"]) if is_update else place.publish()
    assert names(data) == ["d-train.tfrecord-00000-of-00001", "metadata.json"]
    assert names(tmp_path) == ["d"]


def test_a_repair_leaves_the_unfinished_work_of_others(tmp_path):
    data = tmp_path / "d"
    data.mkdir()
    with pytest.raises(RuntimeError), open_staging(data, {"command": "update"}) as place:
        (place.units / TASK).touch()
        raise RuntimeError
    before = names(tmp_path / "d.incomplete")
    with open_repair_place(data) as place:
        (place.units / TASK).touch()
        (place.dataset / "metadata.json").touch()
        with pytest.raises(ConfigError, match="another process is at work"), open_staging(data, {}):
            pass
    assert names(tmp_path / "d.incomplete") == before
    assert (tmp_path / "d.incomplete/units" / TASK).exists()
    refused = pytest.raises(ConfigError, match="another process is at work")
    with lock_file(tmp_path / "d.lock", busy="busy"), refused, open_repair_place(data):
        pass


def test_unfinished_work_of_another_command_is_named(tmp_path):
    with (
        pytest.raises(RuntimeError),
        open_staging(tmp_path / "d", {"command": "build", "--quality": 9}) as place,
    ):
        (place.units / TASK).touch()
        raise RuntimeError
    refused = pytest.raises(
        ConfigError, match=r"holds unfinished work of `build`; start that again as it was"
    )
    with refused, open_staging(tmp_path / "d", {"command": "update"}):
        pass


def test_a_mount_point_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "is_mount_point", lambda folder: folder == tmp_path / "d")
    refused = pytest.raises(ConfigError, match=r"d: a mount point, .* such as .*d/dataset")
    with refused, open_staging(tmp_path / "d", {}):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["d.incomplete", "d.lock"])
@pytest.mark.parametrize("is_link", [False, True])
def test_what_others_have_at_our_names_is_refused_and_left(tmp_path, name, is_link):
    mine = tmp_path / ("mine" if is_link else name)
    mine.mkdir()
    for kept in ("thesis.txt", "units/a/thesis.txt", "dataset/thesis.txt", "shards/thesis.txt"):
        (mine / kept).parent.mkdir(parents=True, exist_ok=True)
        (mine / kept).write_text("years of work")
    if is_link:
        (tmp_path / name).symlink_to("mine")
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    for open_place in (lambda: open_staging(tmp_path / "d", {}), lambda: open_repair_place(tmp_path / "d")):
        with pytest.raises(ConfigError, match=name), open_place():
            pass
    after = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    assert [path for path in after if path.name != "d.lock"] == [
        path for path in before if path.name != "d.lock"
    ]


@pytest.mark.parametrize(
    "name", ["dataset", "dataset.before", "shards", "units", "units/ab", "repair", "options.json"]
)
def test_links_inside_the_staging_area_are_refused(tmp_path, name):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/metadata.json").write_text("mine")
    link = tmp_path / "d.incomplete" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "mine")
    with pytest.raises(ConfigError, match="a link"), open_staging(tmp_path / "d", {}):
        pass
    assert (tmp_path / "mine/metadata.json").read_text() == "mine"


def test_files_of_others_among_work_in_progress_are_kept_and_named(tmp_path, caplog):
    with open_staging(tmp_path / "d", {}) as place:
        (place.units / "ab").mkdir()
        (place.units / "ab/thesis.txt").write_text("mine")
        (place.root / "notes.txt").write_text("mine")
        (place.dataset / "metadata.json").touch()
        place.publish()
    assert (place.units / "ab/thesis.txt").exists()
    assert (place.root / "notes.txt").exists()


def test_what_is_put_into_the_old_dataset_meanwhile_is_kept_beside_it(tmp_path, caplog):
    data = tmp_path / "d"
    (data / "sub").mkdir(parents=True)
    (data / "metadata.json").write_text("old")
    with open_staging(data, {}) as place:
        (place.dataset / "metadata.json").write_text("new")
        (data / "notes.md").write_text("mine")
        with caplog.at_level(logging.WARNING):
            place.replace(["metadata.json"])
    assert (data / "metadata.json").read_text() == "new"
    assert names(tmp_path) == ["d", "d.previous"]
    assert names(tmp_path / "d.previous") == ["notes.md", "sub"]
    assert f"{data}.previous: kept" in caplog.text
    assert "notes.md, sub" in caplog.text


def test_a_folder_that_appears_while_a_build_runs_is_not_touched(tmp_path):
    data = tmp_path / "d"
    with pytest.raises(ConfigError, match="appeared while the job ran"), open_staging(data, {}) as place:
        (place.units / TASK).touch()
        (place.dataset / "metadata.json").write_text("new")
        data.mkdir()
        (data / "thesis.txt").write_text("mine")
        place.publish()
    assert names(data) == ["thesis.txt"]
    assert (place.dataset / "metadata.json").read_text() == "new"


def test_a_file_that_nfs_keeps_open_does_not_fail_a_job_that_succeeded(tmp_path, monkeypatch):
    """On NFS a file that is removed while it is open stays in its folder under another name."""
    from pathlib import Path

    unlink = Path.unlink

    def unlink_on_nfs(path, *args, **kwargs):
        if path.suffix == ".verdicts":
            path.rename(path.with_name(".nfs000000000025493a00000001"))
        else:
            unlink(path, *args, **kwargs)

    monkeypatch.setattr(Path, "unlink", unlink_on_nfs)
    with open_staging(tmp_path / "d", {}) as place:
        (place.units / TASK).touch()
        (place.dataset / "metadata.json").write_text("new")
        place.publish()
    assert names(tmp_path / "d") == ["metadata.json"]
    with open_staging(tmp_path / "d", {}):  # And the next one starts.
        pass


def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path, monkeypatch):
    """As with some FUSE file systems and 9p."""
    import errno
    import os
    import stat

    fsync = os.fsync

    def fsync_on_fuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync_on_fuse)
    with open_staging(tmp_path / "d", {}) as place:
        (place.dataset / "metadata.json").write_text("new")
        place.publish()
    assert names(tmp_path / "d") == ["metadata.json"]


def test_a_job_succeeds_where_no_thread_can_be_started_to_clean_up(tmp_path, monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    with open_staging(tmp_path / "d", {}) as place:
        (place.units / TASK).touch()
        (place.dataset / "metadata.json").write_text("new")
        fsync_folder_contents(place.dataset)
        monkeypatch.setattr(threading.Thread, "start", start)
        place.remove_units()
    assert not place.units.exists()


def test_a_read_error_while_cleaning_up_fails_no_job_that_succeeded(tmp_path, monkeypatch, caplog):
    listdir = os.listdir

    def listdir_of_a_lost_server(path):
        if "units" in str(path):
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return listdir(path)

    with open_staging(tmp_path / "d", {}) as place:
        (place.units / TASK).touch()
        (place.dataset / "metadata.json").write_text("new")
        monkeypatch.setattr(os, "listdir", listdir_of_a_lost_server)
        place.publish()
    assert names(tmp_path / "d") == ["metadata.json"]
    assert "Stale file handle" in caplog.text
