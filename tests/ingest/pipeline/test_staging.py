import filelock
import pytest

from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.pipeline.staging import open_repair_place, open_staging


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
        (killed.units / "unit").touch()
        raise RuntimeError
    with open_staging(data, {}) as place:
        with pytest.raises(FileNotFoundError):
            (killed.shards / "d-train.tfrecord-00000-of-00001").write_text("by a worker that was not told")
        (place.shards / "d-train.tfrecord-00000-of-00001").write_text("whole")
        place.take("d-train.tfrecord-00000-of-00001")
        (place.shards / "d-train.tfrecord-00000-of-00001.0123456789ab.part").write_text("half")
        (place.dataset / "metadata.json").write_text("whole")
        place.finish()
    assert names(data) == ["d-train.tfrecord-00000-of-00001", "metadata.json"]
    assert names(tmp_path) == ["d"]


def test_a_repair_leaves_the_unfinished_work_of_others(tmp_path):
    data = tmp_path / "d"
    data.mkdir()
    with pytest.raises(RuntimeError), open_staging(data, {"command": "update"}) as place:
        (place.units / "unit").touch()
        raise RuntimeError
    before = names(tmp_path / "d.incomplete")
    with open_repair_place(data) as place:
        (place.units / "mine").touch()
        (place.dataset / "mine").touch()
        with pytest.raises(ConfigError, match="another process is at work"), open_staging(data, {}):
            pass
    assert names(tmp_path / "d.incomplete") == before
    assert (tmp_path / "d.incomplete/units/unit").exists()
    refused = pytest.raises(ConfigError, match="another process is at work")
    with filelock.FileLock(tmp_path / "d.incomplete/lock"), refused, open_repair_place(data):
        pass
