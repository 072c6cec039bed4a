import dataclasses
import shutil

import numpy as np
import pytest

from shardstream.ingest.__main__ import main
from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.index import FILENAME, open_index, scan_shards, shard_rows
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.records import read_records


@pytest.fixture(scope="module")
def built(tmp_path_factory, make_photos):
    root = tmp_path_factory.mktemp("index")
    make_photos(root / "photos", num_photos=20)
    size = ["--image-size", "32", "--shard-size", "20KiB", "--workers", "1"]
    assert main(["build", str(root / "photos"), str(root / "data"), *size]) == 0
    return root


@pytest.fixture
def info(built, tmp_path):
    return DatasetInfo.load(shutil.copytree(built / "data", tmp_path / "data"))


def test_the_index_has_a_row_for_each_record_in_split_order(info):
    index = open_index(info)
    assert len(index) == 60
    for filename, shard in info.shards.items():
        with (info.data_dir / filename).open("rb") as file:
            found = list(read_records(file))
        rows = shard_rows(index, info, filename)
        assert len(rows) == shard.num_examples
        assert rows["offset"].tolist() == [record.offset for record in found]
        assert rows["checksum"].tolist() == [int.from_bytes(record.checksum, "little") for record in found]


def test_numpy_alone_reads_it(info):
    assert np.load(info.data_dir / FILENAME, mmap_mode="r").dtype.names == ("offset", "checksum")


def test_a_scan_of_the_shards_gives_the_same(info):
    assert np.array_equal(scan_shards(info, info.shards.values()), open_index(info))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: path.unlink(), "no such shard"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "is cut short"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "records end at byte"),
        (lambda path: path.write_bytes(b"x" * path.stat().st_size), "record 0 at byte 0"),
    ],
)
def test_a_scan_names_the_shard_that_is_corrupt(info, spoil, sentence):
    filename = list(info.shards)[1]
    spoil(info.data_dir / filename)
    with pytest.raises(DatasetError, match=rf"{filename}: .*{sentence}.*shardstream-ingest repair"):
        scan_shards(info, info.shards.values())


def as_format_3(data):
    """Makes of a dataset what the format before was, as far as readers can tell."""
    info = DatasetInfo.load(data)
    (data / FILENAME).unlink()
    metadata = data / "metadata.json"
    metadata.write_text(metadata.read_text().replace('"format_version": 4', '"format_version": 3'))
    return info


def test_an_update_of_the_format_before_needs_no_photo_that_has_not_changed(built, tmp_path, capsys):
    data = shutil.copytree(built / "data", tmp_path / "data")
    as_format_3(data)
    gone = built / "photos/food/0.jpg"  # Not in a copy of the photos: those have other inodes.
    gone.rename(tmp_path / "0.jpg")
    assert main(["update", str(built / "photos"), str(data), "--workers", "1"]) == 0
    (tmp_path / "0.jpg").rename(gone)
    assert "0 of them read" in capsys.readouterr().out
    info = DatasetInfo.load(data)
    assert info.format_version == 4
    assert np.array_equal(open_index(info), scan_shards(info, info.shards.values()))


def test_a_corrupt_index_is_repaired_without_the_photos(info, built):
    before = (info.data_dir / FILENAME).read_bytes()
    (info.data_dir / FILENAME).write_bytes(b"nothing")
    assert main(["verify", str(info.data_dir)]) == 1
    assert main(["repair", str(built / "photos"), str(info.data_dir), "--workers", "1"]) == 0
    assert (info.data_dir / FILENAME).read_bytes() == before
    assert main(["verify", str(info.data_dir)]) == 0


def test_an_update_refuses_an_index_that_does_not_fit(info, built, capsys):
    index = np.array(open_index(info))
    index["offset"][1] = 0
    np.save(info.data_dir / FILENAME, index)
    assert main(["update", str(built / "photos"), str(info.data_dir), "--workers", "1"]) == 2
    assert "index.npy: the offsets of" in capsys.readouterr().err


def test_an_index_of_another_number_of_records(info):
    more = dataclasses.replace(info.split("train"), shards=info.split("train").shards[:1])
    other = dataclasses.replace(info, splits={**info.splits, "train": more})
    with pytest.raises(DatasetError, match=r"index.npy: expected \d+ rows of offset and checksum, found"):
        open_index(other)
