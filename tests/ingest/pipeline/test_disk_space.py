import os
import shutil
from pathlib import Path

import pytest

from shardstream.ingest.common.errors import MachineError
from shardstream.ingest.images.settings import ImageSettings
from shardstream.ingest.pipeline.disk_space import check_free_space, check_room_for_shards


@pytest.fixture
def large(tmp_path: Path) -> ImageSettings:
    """Settings by which 100 images take twice the room that there is."""
    size = int((2 * shutil.disk_usage(tmp_path).free / 100 / 3) ** 0.5)
    return ImageSettings(size=size, resize="stretch", encoding="raw", quality=95)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    (tmp_path / "units").mkdir()
    return tmp_path / "units"


def test_a_disk_without_room_is_said_before_the_work(units, large):
    sentence = "100 files take at least .* more here, .* are free; make room"
    with pytest.raises(MachineError, match=sentence) as raised:
        check_free_space(100, large, [units])
    assert raised.value.exit_code == 1


def test_what_a_stopped_job_has_stored_takes_no_room_again(units, large):
    (units / "0").touch()
    os.truncate(units / "0", 101 * 3 * large.size**2)  # A file with a hole: it takes no room on the disk.
    check_free_space(100, large, [units])


def test_shards_that_do_not_fit_are_said_before_they_are_written(units):
    free = shutil.disk_usage(units).free
    check_room_for_shards(free // 2, units)
    with pytest.raises(MachineError, match=r"the new dataset takes .* here, .* are free; make room"):
        check_room_for_shards(2 * free, units)


def test_a_service_that_does_not_say_how_much_room_it_has_is_written_to(units, large, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 0))
    check_free_space(100, large, [units])
    check_room_for_shards(1 << 60, units)
