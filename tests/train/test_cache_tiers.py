"""What is promised of `--cache memory`, `disk` and `device`, on the batches that they give."""

import errno
import gc
import logging
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.data.cache import picture_layout
from shardstream.train.data.cache_folder import CacheFolder
from shardstream.train.data.cached_split import CachedSplit
from shardstream.train.data.device_cache import DeviceSplit
from shardstream.train.data.disk_cache import DiskPictures
from shardstream.train.data.input_pipeline import StreamedSplit, make_eval_batches, make_train_batches
from shardstream.train.data.memory_cache import MemoryPictures
from shardstream.train.data.order import epoch_permutation
from shardstream.train.data.picture_file import PartialPictureFile

SIZE, SEED, BATCH = 16, 3, 24
NUM_TRAIN = 101  # 4 steps and 5 pictures beyond them.
STEPS = NUM_TRAIN // BATCH
TIERS = ["memory", "disk", "device"]


@pytest.fixture(scope="module")
def original(make_dataset):
    return make_dataset(num_train=NUM_TRAIN, num_validation=21)


@pytest.fixture
def info(original, tmp_path):
    """A dataset of its own, so that nobody else's cache is in it."""
    shutil.copytree(original.data_dir, tmp_path / "data")
    return DatasetInfo.load(tmp_path / "data")


@pytest.fixture
def folder(tmp_path):
    return CacheFolder(tmp_path / "cache")


def make_stream(info, split="train"):
    # Two blocks, so that an epoch has several windows.
    return StreamedSplit(info, split, image_size=SIZE, window_bytes=info.split(split).num_bytes // 4)


def make_disk(info, folder, split="train"):
    stream = make_stream(info, split)
    pictures = DiskPictures(folder, picture_layout(stream), stream.decoded)
    return CachedSplit(stream, pictures), pictures


def make(tier, info, folder, split="train"):
    if tier == "disk":
        return make_disk(info, folder, split)[0]
    stream = make_stream(info, split)
    if tier == "device":
        return DeviceSplit(stream, tf.distribute.get_strategy())
    return CachedSplit(stream, MemoryPictures(stream.split.num_examples, SIZE))


def numbers(images: np.ndarray) -> list[int]:
    return (images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 0, 1]).tolist()


def epoch_order(source, epoch=0, step=0) -> list[int]:
    """Returns the numbers that are in the pixels, after a look at the labels."""
    batches = make_train_batches(source, seed=SEED, epoch=epoch, batch_size=BATCH, start_step=step)
    seen = []
    for images, labels in map(source.on_devices, batches):
        assert images.shape == (BATCH, SIZE, SIZE, 3)
        assert images.numpy()[:, 0, 0, 2].tolist() == labels.numpy().tolist()
        seen += numbers(images.numpy())
    source.complete()
    return seen


def expected_orders(info) -> list[list[int]]:
    first = make_stream(info).order(seed=SEED, epoch=0)
    second = epoch_permutation(NUM_TRAIN, seed=SEED, epoch=1)
    return [order[: STEPS * BATCH].tolist() for order in (first, second)]


def kept_files(folder) -> list[str]:
    return sorted(path.name.split(".", 1)[1] for path in folder.path.iterdir())


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("tier", TIERS)
def test_order_at_every_step_of_two_epochs_and_all_that_follows(tier, warm, info, tmp_path):
    """Cold, a new process would have nothing to go on with; warm, all pictures are there before the first step."""
    expected = expected_orders(info)
    shared, filled = CacheFolder(tmp_path / "shared"), None
    if warm:
        filled = make(tier, info, shared)
        filled.complete()
        assert [epoch_order(filled, epoch) for epoch in range(2)] == expected
    for epoch in range(2):
        for step in range(STEPS):
            if filled:
                source = make(tier, info, shared) if tier == "disk" else filled
            else:
                source = make(tier, info, CacheFolder(tmp_path / f"{epoch} {step}"))
            rest = [epoch_order(source, e, step if e == epoch else 0) for e in range(epoch, 2)]
            assert rest == [expected[epoch][step * BATCH :], *expected[epoch + 1 :]]


@pytest.mark.parametrize("tier", TIERS)
def test_pictures_are_decoded_once(tier, info, folder):
    """By then no shard is needed any more, though the first epoch left out what fills no batch."""
    source = make(tier, info, folder)
    first = epoch_order(source)
    shutil.rmtree(info.data_dir)
    assert epoch_order(source) == first
    assert len(epoch_order(source, epoch=1)) == len(first)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("num_replicas", [1, 2])
def test_evaluation_gives_each_picture_once_while_it_fills_the_cache_and_afterwards(
    tier, num_replicas, info, folder
):
    source = make(tier, info, folder, "validation")
    for _ in range(2):
        host_batches = make_eval_batches(source, batch_size=8, num_replicas=num_replicas)
        batches = [[part.numpy() for part in source.on_devices(batch)] for batch in host_batches]
        assert {batch[0].shape for batch in batches} == {(8 // num_replicas, SIZE, SIZE, 3)}
        images, labels, weights = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        assert weights.tolist() == [1.0] * 21 + [0.0] * 3
        assert numbers(images[:21]) == list(range(21))
        assert labels[:21].tolist() == [number % 3 for number in range(21)]


def test_devices_get_numbers_and_the_host_gives_its_memory_back(info, folder):
    source = make("device", info, folder)
    epoch_order(source)
    batch = next(make_train_batches(source, seed=SEED, epoch=1, batch_size=BATCH))
    assert [(part.shape, part.dtype.name) for part in batch] == [
        ((BATCH,), "int64"),
        ((BATCH,), "int32"),
    ]
    assert source._filling is None
    assert len(source._look_ups) == 1


def test_a_file_is_found_by_what_is_in_it(info, folder, tmp_path):
    """Wherever the dataset lies; another size or split is another file."""
    make_disk(info, folder)[0].complete()
    shutil.copytree(info.data_dir, tmp_path / "elsewhere")
    source, pictures = make_disk(DatasetInfo.load(tmp_path / "elsewhere"), folder)
    assert pictures.is_whole()
    smaller = StreamedSplit(info, "train", image_size=8)
    layouts = [picture_layout(make_stream(info, split)) for split in ("train", "validation")]
    assert len({layout.key for layout in (*layouts, picture_layout(smaller))}) == 3
    assert epoch_order(source) == expected_orders(info)[0]


# Fills the cache of the dataset argv[1] in argv[2], and at the third batch waits for a line on stdin.
FILL = """
import sys
from pathlib import Path
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.data.cache import make_source
from shardstream.train.data.cache_folder import CacheFolder

info = DatasetInfo.load(Path(sys.argv[1]))
source = make_source(info, "train", tier="disk", image_size=16, folder=CacheFolder(Path(sys.argv[2])))
for number, _ in enumerate(source.shuffled_batches(seed=1, epoch=0, start=0, batch_size=16)):
    if number == 2:
        print("half", flush=True)
        sys.stdin.readline()
source.complete()
print("whole", flush=True)
sys.stdin.readline()
"""


class Filler:
    """Another process that fills the cache."""

    def __init__(self, info: DatasetInfo, folder: CacheFolder) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", FILL, str(info.data_dir), str(folder.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.wait_for("half")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def wait_for(self, word: str) -> None:
        assert self.process.stdout.readline() == f"{word}\n"

    def go_on(self) -> None:
        print(file=self.process.stdin, flush=True)


def test_killed_while_it_fills_the_cache_and_begun_anew(info, folder):
    with Filler(info, folder) as filler:
        filler.process.send_signal(signal.SIGKILL)
    assert kept_files(folder) == ["pictures.part"]
    source, pictures = make_disk(info, folder)
    assert not pictures.is_whole()
    assert [epoch_order(source, epoch) for epoch in range(2)] == expected_orders(info)
    assert kept_files(folder) == ["pictures"]


def test_what_a_killed_process_left_of_another_dataset_goes(info, folder, make_dataset):
    with Filler(info, folder) as filler:
        filler.process.send_signal(signal.SIGKILL)
    make_disk(make_dataset(num_train=20), folder)[0].complete()
    assert kept_files(folder) == ["pictures"]


def test_two_processes_side_by_side(info, folder, caplog):
    """The second decodes for itself until the first is done, and trains the same."""
    with Filler(info, folder) as filler:
        with caplog.at_level(logging.INFO, logger="train"):
            source, pictures = make_disk(info, folder)
        assert [message.split(": ", 1)[1] for message in caplog.messages] == [
            "another process fills it; until then pictures are decoded in every epoch"
        ]
        assert [epoch_order(source, epoch) for epoch in range(2)] == expected_orders(info)
        assert not pictures.is_whole()
        assert kept_files(folder) == ["pictures.part"]
        filler.go_on()
        filler.wait_for("whole")
        assert pictures.is_whole()
        assert [epoch_order(source, epoch) for epoch in range(2)] == expected_orders(info)
        filler.go_on()


def test_what_was_kept_of_an_older_state_of_the_dataset_goes(info, folder, make_dataset, caplog):
    source, pictures = make_disk(info, folder)
    source.complete()
    (old,) = folder.path.iterdir()
    shutil.rmtree(info.data_dir)
    shutil.copytree(make_dataset(num_train=NUM_TRAIN, num_classes=2).data_dir, info.data_dir)
    changed = DatasetInfo.load(info.data_dir)
    other = CacheFolder(folder.path)
    make_disk(changed, other)[0].complete()
    assert old.exists()  # Still in use.
    del source, pictures
    gc.collect()
    with caplog.at_level(logging.INFO, logger="train"):
        make_disk(changed, other)
    assert caplog.messages == [f"{old}: removed, as it is of an older state of the dataset"]
    assert kept_files(folder) == ["pictures"]


def test_files_of_others_stay(info, folder):
    folder.path.mkdir()
    for name in ("holiday.pictures", "holiday.pictures.part"):
        (folder.path / name).write_text("mine")
    make_disk(info, folder)[0].complete()
    assert kept_files(folder) == ["pictures", "pictures", "pictures.part"]


def test_the_limit_is_kept_and_the_file_that_was_not_used_for_the_longest_time_goes(
    info, folder, make_dataset
):
    datasets = [make_dataset(num_train=NUM_TRAIN, num_classes=n) for n in (2, 4, 5)]
    num_bytes = picture_layout(make_stream(info)).num_bytes
    limited = CacheFolder(folder.path, limit_bytes=2 * num_bytes)
    for dataset in datasets[:2]:
        make_disk(dataset, limited)[0].complete()
    assert make_disk(datasets[0], limited)[1].is_whole()
    gc.collect()
    make_disk(datasets[2], limited)[0].complete()
    keys = {path.name.split(".")[0] for path in folder.path.iterdir()}
    assert keys == {picture_layout(make_stream(datasets[n])).key for n in (0, 2)}


def test_files_in_use_stay_whatever_the_limit(info, folder, make_dataset, caplog):
    source, _ = make_disk(info, folder)
    source.complete()
    limited = CacheFolder(folder.path, limit_bytes=picture_layout(make_stream(info)).num_bytes)
    other, pictures = make_disk(make_dataset(num_train=90), limited)
    assert len(epoch_order(other)) == 72
    assert not pictures.is_whole()
    assert len(caplog.messages) == 1
    assert (
        "pictures cannot be kept there (no room for 0.00 GB); they are decoded in every epoch" in caplog.text
    )
    assert kept_files(folder) == ["pictures"]
    assert epoch_order(source, epoch=1) == expected_orders(info)[1]


def flip_bit(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("offset", [100, -20, -300], ids=["header", "digest", "table"])
def test_a_damaged_file_is_noticed_and_made_anew(info, folder, caplog, offset):
    make_disk(info, folder)[0].complete()
    gc.collect()
    (path,) = folder.path.iterdir()
    flip_bit(path, offset)
    source, pictures = make_disk(info, folder)
    assert caplog.messages == [
        f"{path}: removed, as it is not as it was written (its description or table is damaged)"
    ]
    assert [epoch_order(source, epoch) for epoch in range(2)] == expected_orders(info)
    assert pictures.is_whole()


def test_a_file_that_was_cut_is_noticed(info, folder, caplog):
    make_disk(info, folder)[0].complete()
    gc.collect()
    (path,) = folder.path.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    _, pictures = make_disk(info, folder)
    assert "bytes, expected" in caplog.text
    assert not pictures.is_whole()


def test_a_picture_that_is_damaged_is_decoded_again(info, folder, caplog):
    make_disk(info, folder)[0].complete()
    gc.collect()
    (path,) = folder.path.iterdir()
    for row in (7, 70):  # In the pixels that the numbers are in.
        flip_bit(path, 8192 + row * SIZE * SIZE * 3 + 1)
    source, _ = make_disk(info, folder)
    assert [epoch_order(source, epoch) for epoch in range(2)] == expected_orders(info)
    assert caplog.messages == [
        f"{path}: pictures in it are damaged; they are decoded again, and it is removed"
    ]
    assert kept_files(folder) == []


def test_a_disk_that_is_full_before_the_start(info, folder, caplog):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        source, _ = make_disk(info, folder)
        assert [epoch_order(source, epoch) for epoch in range(2)] == expected_orders(info)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caplog.messages == [
        f"{folder.path}: pictures cannot be kept there (File too large); they are decoded in every epoch"
    ]
    assert kept_files(folder) == []


def test_a_disk_that_fills_up_under_way(info, folder, caplog, monkeypatch):
    """Room is taken beforehand, but not every file system keeps that promise."""
    whole_put, calls = PartialPictureFile.put, []

    def put(self, row, image, label):
        calls.append(row)
        if len(calls) == 30:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole_put(self, row, image, label)

    monkeypatch.setattr(PartialPictureFile, "put", put)
    source, pictures = make_disk(info, folder)
    assert [epoch_order(source, epoch) for epoch in range(2)] == expected_orders(info)
    assert not pictures.is_whole()
    assert caplog.messages == [
        f"{folder.path}: pictures cannot be kept there (No space left on device); they are decoded in every epoch"
    ]
    assert kept_files(folder) == []


def test_a_folder_that_cannot_be_made_is_a_warning(info, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    source, _ = make_disk(info, CacheFolder(tmp_path / "file" / "cache"))
    assert epoch_order(source) == expected_orders(info)[0]
    assert [message.split(" (")[1].split(")")[0] for message in caplog.messages] == ["Not a directory"]
