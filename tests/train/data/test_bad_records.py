import csv
import json
import re
import shutil
import struct

import numpy as np
import pytest
from PIL import Image

from shardstream.ingest.__main__ import main as ingest
from shardstream.ingest.common.errors import DatasetError, LimitError
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.__main__ import main as train
from shardstream.train.config import TrainConfig
from shardstream.train.data.bad_records import find_bad_records, without_bad_records
from shardstream.train.data.input_pipeline import StreamedSplit, make_eval_batches, make_train_batches
from shardstream.train.data.split_reader import SplitReader
from shardstream.train.resolve import prepare

SIZE = 16


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photos whose colour is their number; a class whose name would be a formula."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(150):
        path = root / ("=food", "exterior")[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (SIZE, SIZE), (number, 7, number % 2)).save(path)
    return root


@pytest.fixture(scope="module", params=["png", "raw"])
def built(request, photos, tmp_path_factory):
    data = tmp_path_factory.mktemp("data") / "photos"
    options = (
        "--image-size",
        str(SIZE),
        "--encoding",
        request.param,
        "--shard-size",
        "20KiB",
        "--workers",
        "1",
    )
    assert ingest(["build", str(photos), str(data), *options]) == 0
    return data


@pytest.fixture
def info(built, tmp_path):
    shutil.copytree(built, tmp_path / "data")
    return DatasetInfo.load(tmp_path / "data")


def numbers(batches) -> list[int]:
    found = []
    for images, _, *weights in batches:
        shown = np.asarray(images)[:, 0, 0, 0]
        found += shown[np.asarray(weights[0]) > 0].tolist() if weights else shown.tolist()
    return found


def in_file_order(info, split="train") -> list[int]:
    return numbers(StreamedSplit(info, split, image_size=SIZE).ordered_batches(batch_size=8))


def edit(info, change, shard=0):
    path = info.data_dir / info.split("train").shards[shard].filename
    content = bytearray(path.read_bytes())
    path.write_bytes(change(content, info.split("train").shards[shard]))
    return path


def flip(*places):
    """Flips a bit of the content behind the beginning of each of these blocks."""

    def change(content, shard):
        for block, behind in places:
            content[shard.block_offsets[block] + behind] ^= 1
        return content

    return change


def starts(content) -> list[int]:
    """Returns where each record of a shard begins, and where the last one ends."""
    found = [0]
    while found[-1] < len(content):
        (length,) = struct.unpack_from("<Q", content, found[-1])
        found.append(found[-1] + length + 16)
    return found


def flip_lengths(*records):
    """Flips a bit of what says how long each of these records is, or of the checksum of that."""

    def change(content, shard):
        for number, start in zip(records, [starts(content)[record] for record in records], strict=True):
            content[start + 1 + 8 * (number % 2)] ^= 1
        return content

    return change


def flip_footer(record):
    """Flips a bit of the checksum of its content."""

    def change(content, shard):
        content[starts(content)[record + 1] - 1] ^= 1
        return content

    return change


def both(first, second):
    return lambda content, shard: second(first(content, shard), shard)


def cut(content, shard):
    return content[: shard.block_offsets[1]]


def find(info, limit=100):
    return find_bad_records(info, ("train", "validation"), image_size=SIZE, limit=limit)


def positions(bad):
    return {
        name: [one.position for one in bad if one.place.split == name] for name in ("train", "validation")
    }


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (flip((0, 60), (1, 60)), [0, 16]),
        (flip_lengths(16), [16]),
        (flip_lengths(1, 3, 6), [1, 3, 6]),
        (flip_lengths(0, 15, 16), [0, 15, 16]),  # The last one of a block has none behind it.
        (both(flip((0, 60)), flip_lengths(3)), [0, 3]),
        # What is found behind the first of these could be anything.
        (flip_lengths(1, 2), list(range(1, 16))),
        (both(flip_footer(5), flip_lengths(3)), list(range(3, 16))),
        (cut, None),
    ],
)
def test_exactly_the_bad_ones_are_left_out(info, change, expected):
    whole = in_file_order(info)
    shard = info.split("train").shards[0]
    edit(info, change)
    bad = find(info)
    expected = expected or list(range(16, shard.num_examples))
    assert positions(bad) == {"train": expected, "validation": []}
    left = without_bad_records(info, positions(bad))
    good = [number for position, number in enumerate(whole) if position not in expected]
    assert left.split("train").num_examples == len(good)
    assert in_file_order(left) == good
    source = StreamedSplit(left, "train", image_size=SIZE, window_bytes=10_000)
    assert numbers(make_eval_batches(source, batch_size=8)) == good
    for epoch in (0, 1):
        order = source.order(seed=1, epoch=epoch)
        assert sorted(order) == list(range(len(good)))
        seen = numbers(make_train_batches(source, seed=1, epoch=epoch, batch_size=8))
        assert seen == [good[position] for position in order[: len(seen)]]
        assert len(seen) == len(good) // 8 * 8
        rest = make_train_batches(source, seed=1, epoch=epoch, batch_size=8, start_step=3)
        assert numbers(rest) == seen[24:]


def test_a_missing_shard_is_so_many_bad_records(info):
    shard = info.split("train").shards[1]
    (info.data_dir / shard.filename).unlink()
    first = info.split("train").shards[0].num_examples
    bad = find(info)
    assert positions(bad)["train"] == list(range(first, first + shard.num_examples))
    left = without_bad_records(info, positions(bad))
    assert len(in_file_order(left)) == info.split("train").num_examples - shard.num_examples


def test_they_are_named_with_their_source_and_counted(info, caplog):
    number = in_file_order(info)[0]
    path = edit(info, flip((0, 60)))
    (bad,) = find(info, limit=1)
    assert bad.source == f"{('=food', 'exterior')[number % 2]}/{number}.png"
    assert f"left out: {path.name}: record 0 (of {bad.source}) has a wrong checksum" in caplog.text
    edit(info, flip((1, 60)))
    with pytest.raises(
        LimitError, match=r"more than 1 bad records \(--max-bad-records\), the first is .*record 0"
    ):
        find(info, limit=1)


def test_another_bad_record_stops_the_reading_with_its_own_name(info):
    number = in_file_order(info)[17]
    edit(info, flip((0, 60)))
    left = without_bad_records(info, positions(find(info)))
    offset = SplitReader(info, "train").blocks.lengths[0] // 16  # All records are about as long.
    path = edit(info, flip((1, int(offset) + 60)))
    source = f"{('=food', 'exterior')[number % 2]}/{number}.png"
    with pytest.raises(DatasetError) as caught:
        list(StreamedSplit(left, "train", image_size=SIZE).ordered_batches(batch_size=8))
    assert str(caught.value).startswith(f"{path}: record 17 (of {source}) ")


def test_the_fingerprint_is_that_of_what_is_left(info):
    fingerprints = {
        without_bad_records(info, {"train": bad}).fingerprint for bad in ([], [0], [1], [0, 1], [40])
    }
    assert len(fingerprints) == 5
    assert info.fingerprint in fingerprints


def test_a_run_that_goes_on_leaves_out_the_same(info, tmp_path, caplog):
    caplog.set_level("INFO", "shardstream.train.data.bad_records")
    edit(info, flip((0, 60), (1, 60)))
    config = TrainConfig(
        data_dir=info.data_dir, run=tmp_path / "run", batch_size=8, cache="none", max_bad_records=2
    )
    began = prepare(config)
    assert "looks at every record" in caplog.text
    caplog.clear()
    goes_on = prepare(config, json.loads(json.dumps(began.describe()))["bad_records"])
    assert "looks at every record" not in caplog.text
    assert goes_on.describe() == began.describe()
    assert goes_on.info.split("train").num_examples == info.split("train").num_examples - 2


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_a_run_leaves_them_out_and_says_so(info, tmp_path, capsys, cache):
    edit(info, flip((0, 60), (1, 60)))
    arguments = [
        str(info.data_dir),
        "--epochs",
        "1",
        "--batch-size",
        "8",
        "--cache",
        "none",
        "--model",
        "seed",
    ]
    assert train([*arguments, "--run", str(tmp_path / "a")]) == 2
    assert re.search(r"record (0|16) \(of ", capsys.readouterr().err)  # Whichever is wanted first.
    assert train([*arguments, "--run", str(tmp_path / "b"), "--max-bad-records", "1"]) == 3
    assert not (tmp_path / "b").exists() or not any((tmp_path / "b").glob("*.keras"))
    run = tmp_path / "c"
    assert train([*arguments, "--run", str(run), "--max-bad-records", "2"]) == 0
    with (run / "bad_records.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["split"], row["record"]) for row in rows] == [("train", "0"), ("train", "16")]
    assert all(row["source_path"].lstrip("'").endswith(".png") for row in rows)
    assert not any(row["source_path"].startswith("=") for row in rows)
    config = json.loads((run / "config.json").read_text())
    assert config["bad_records"] == {"train": [0, 16], "validation": []}
    assert config["steps_per_epoch"] == (info.split("train").num_examples - 2) // 8
