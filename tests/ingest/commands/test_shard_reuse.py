"""Updates of datasets of many shards: those that are as they were are not written again."""

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest

from shardstream.ingest.__main__ import main
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.records import decode_example, read_records
from shardstream.ingest.pipeline import shard_plan

WORKERS = ("--workers", "2")


def build(images: Path, data: Path, *, shard_size: str = "2KiB") -> None:
    assert (
        main(["build", str(images), str(data), "--image-size", "32", "--shard-size", shard_size, *WORKERS])
        == 0
    )


def update(images: Path, data: Path, capsys) -> dict:
    capsys.readouterr()
    assert main(["update", str(images), str(data), "--json", *WORKERS]) == 0
    return json.loads(capsys.readouterr().out)


def content(data: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(data.iterdir())}


def shard_files(data: Path) -> dict[int, str]:
    return {path.stat().st_ino: path.name for path in data.glob("*.tfrecord-*")}


def assert_as_from_scratch(images: Path, data: Path, scratch: Path, **options: str) -> None:
    build(images, scratch / data.name, **options)
    assert content(data) == content(scratch / data.name)


def copy_by_hard_links(data: Path, copy: Path) -> dict[str, bytes]:
    copy.mkdir()
    for path in data.iterdir():
        os.link(path, copy / path.name)
    return content(copy)


def test_a_new_photo_rewrites_the_shard_that_it_falls_into(photos, photo, tmp_path, capsys):
    build(photos, tmp_path / "d")
    before = shard_files(tmp_path / "d")
    copied = copy_by_hard_links(tmp_path / "d", tmp_path / "copy")
    (photos / "food/new.jpg").write_bytes(photo(5000))
    printed = update(photos, tmp_path / "d", capsys)
    after = shard_files(tmp_path / "d")
    assert len(before) > 20
    assert len(before.keys() - after.keys()) <= 1
    assert printed["num_shards_written"] == len(after.keys() - before.keys()) <= 2
    assert_as_from_scratch(photos, tmp_path / "d", tmp_path / "scratch")
    assert main(["verify", str(tmp_path / "d"), "--deep"]) == 0

    # A shard with two names is never written in its place.
    shard = next(tmp_path / "d" / name for inode, name in after.items() if inode in before)
    damaged = bytearray(shard.read_bytes())
    damaged[40] ^= 1
    shard.unlink()
    shard.write_bytes(damaged)
    assert main(["repair", str(photos), str(tmp_path / "d"), *WORKERS]) == 0
    assert content(tmp_path / "d") == content(tmp_path / "scratch/d")
    assert content(tmp_path / "copy") == copied


def equal_sizes(hashes: np.ndarray, lengths: np.ndarray, *, max_bytes: int) -> list[int]:
    """Cuts as versions did that wrote shards of equal sizes."""
    num_shards = max(1, round(int(lengths.sum()) * 1.5 / max_bytes)) if len(hashes) else 0
    return np.linspace(0, len(hashes), num_shards + 1).astype(int).tolist()


def test_a_dataset_of_equal_shards_is_kept_until_it_changes(photos, photo, tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shard_plan, "cut", equal_sizes)
        build(photos, tmp_path / "d", shard_size="8KiB")
    before = content(tmp_path / "d")
    assert main(["verify", str(tmp_path / "d"), "--deep"]) == 0
    (tmp_path / "d/manifest.parquet").unlink()
    assert main(["repair", str(photos), str(tmp_path / "d"), *WORKERS]) == 0
    assert content(tmp_path / "d") == before
    assert update(photos, tmp_path / "d", capsys)["num_shards_written"] == 0
    assert content(tmp_path / "d") == before
    (photos / "food/new.jpg").write_bytes(photo(5000))
    printed = update(photos, tmp_path / "d", capsys)
    num_shards = sum(split["num_shards"] for split in printed["splits"].values())
    assert (
        printed["num_shards_written"] > num_shards / 2
    )  # Of so few records some shards are the same by chance.
    assert_as_from_scratch(photos, tmp_path / "d", tmp_path / "scratch", shard_size="8KiB")


@pytest.mark.parametrize("shard_size", ["3KiB", "100KiB"])
def test_records_are_in_one_order_whatever_the_number_of_shards(photos, tmp_path, shard_size):
    def names(data: Path, split: str) -> list[object]:
        shards = DatasetInfo.load(data).split(split).shards
        files = [(data / shard.filename).open("rb") for shard in shards]
        records = itertools.chain.from_iterable(read_records(file) for file in files)
        found = [decode_example(record.payload)["image/filename"] for record in records]
        for file in files:
            file.close()
        return found

    build(photos, tmp_path / "d")
    build(photos, tmp_path / "other/d", shard_size=shard_size)
    num_shards = {len(shard_files(tmp_path / name)) for name in ("d", "other/d")}
    assert len(num_shards) == 2
    for split in ("train", "validation"):
        assert names(tmp_path / "d", split) == names(tmp_path / "other/d", split)


def test_shards_are_cut_by_the_labels_that_they_will_have(photo, tmp_path):
    """A label above 127 takes another byte: a shard that just fits would be cut if the old labels counted."""
    images = tmp_path / "photos"
    for label in range(150):
        (images / f"c{label:03}").mkdir(parents=True)
        (images / f"c{label:03}/0.jpg").write_bytes(photo(label, size=(8, 8)))
    options = ("--image-size", "8", "--validation", "0", "--no-find-look-alikes", *WORKERS)
    for label in range(22):
        (images / f"c{label:03}").rename(tmp_path / f"c{label:03}")
    assert main(["build", str(images), str(tmp_path / "one/d"), *options]) == 0
    (shard,) = DatasetInfo.load(tmp_path / "one/d").shards.values()
    options += ("--shard-size", str(-(-2 * shard.num_bytes // 3)))
    assert main(["build", str(images), str(tmp_path / "scratch/d"), *options]) == 0
    for label in range(22):
        (tmp_path / f"c{label:03}").rename(images / f"c{label:03}")
    assert main(["build", str(images), str(tmp_path / "d"), *options]) == 0
    for label in range(22):
        (images / f"c{label:03}").rename(tmp_path / f"c{label:03}")
    changes = ("--allow-class-changes", "--max-gone", "1")
    assert main(["update", str(images), str(tmp_path / "d"), *changes, *WORKERS]) == 0
    assert len(shard_files(tmp_path / "scratch/d")) == 1
    assert content(tmp_path / "d") == content(tmp_path / "scratch/d")
