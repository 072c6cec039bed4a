import os
import shutil
from pathlib import Path

import pytest

from shardstream.ingest.common.errors import MachineError
from shardstream.ingest.images.settings import ImageSettings
from shardstream.ingest.pipeline.disk_space import check_free_space
from shardstream.ingest.pipeline.scan import scan_folder


@pytest.fixture
def listing(tmp_path: Path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(50):
            (tmp_path / "photos" / name / f"{number}.jpg").touch()
    return scan_folder(tmp_path / "photos", ())


@pytest.fixture
def large(tmp_path: Path) -> ImageSettings:
    """Settings by which 100 images take twice the room that there is."""
    size = int((2 * shutil.disk_usage(tmp_path).free / 100 / 3) ** 0.5)
    return ImageSettings(size=size, resize="stretch", encoding="raw", quality=95)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    (tmp_path / "units").mkdir()
    return tmp_path / "units"


def test_a_disk_without_room_is_said_before_the_work(listing, units, large):
    sentence = "100 files take at least .* more here, .* are free; make room"
    with pytest.raises(MachineError, match=sentence) as raised:
        check_free_space(listing, large, [units])
    assert raised.value.exit_code == 1


def test_what_a_stopped_job_has_stored_takes_no_room_again(listing, units, large):
    (units / "0").touch()
    os.truncate(units / "0", 101 * 3 * large.size**2)  # A file with a hole: it takes no room on the disk.
    check_free_space(listing, large, [units])
