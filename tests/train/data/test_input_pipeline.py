import numpy as np
import pytest
import tensorflow as tf

from shardstream.train.data.cached_split import CachedSplit
from shardstream.train.data.input_pipeline import (
    StreamedSplit,
    as_tensor,
    make_eval_batches,
    make_train_batches,
    record_names,
)
from shardstream.train.data.memory_cache import MemoryPictures
from shardstream.train.data.stream import Buffers

SIZE = 16
NUM_TRAIN = 517  # 33 blocks in 3 shards, and 5 pictures beyond the last batch of 8.


@pytest.fixture(scope="module")
def info(make_dataset):
    return make_dataset(num_train=NUM_TRAIN, num_validation=21)


@pytest.fixture(scope="module", params=["stream", "memory"])
def source(request, info):
    # A window of 4 blocks, so that an epoch has several.
    stream = StreamedSplit(info, "train", image_size=SIZE, window_bytes=info.split("train").num_bytes // 8)
    return stream if request.param == "stream" else CachedSplit(stream, MemoryPictures(NUM_TRAIN, SIZE))


def numbers(images: np.ndarray) -> list[int]:
    return (images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 0, 1]).tolist()


def order(batches) -> list[int]:
    return [number for batch in batches for number in numbers(np.asarray(batch[0]))]


def train_order(source, *, batch_size=8, seed=3, epoch=0, **options) -> list[int]:
    return order(make_train_batches(source, seed=seed, epoch=epoch, batch_size=batch_size, **options))


def test_an_epoch_is_a_permutation_without_the_last_part_of_a_batch(source):
    seen = train_order(source)
    assert len(seen) == len(set(seen)) == NUM_TRAIN // 8 * 8
    assert set(seen) <= set(range(NUM_TRAIN))


def test_every_picture_gets_its_turn(source):
    epochs = [set(train_order(source, epoch=epoch)) for epoch in range(4)]
    assert set.union(*epochs) == set(range(NUM_TRAIN))


def test_order_is_a_pure_function_of_seed_and_epoch(source):
    first = train_order(source)
    assert train_order(source) == first
    assert train_order(source, epoch=1) != first
    assert train_order(source, seed=4) != first


@pytest.mark.parametrize("start_step", [1, 9, 33, 63])
def test_an_epoch_can_be_started_at_any_step(source, start_step):
    assert train_order(source, start_step=start_step) == train_order(source)[8 * start_step :]


@pytest.mark.parametrize(("seed", "epoch"), [(3, 0), (3, 1), (8, 0)])
def test_the_order_of_the_stream_is_known_beforehand(info, seed, epoch):
    stream = StreamedSplit(info, "train", image_size=SIZE, window_bytes=info.split("train").num_bytes // 8)
    expected = stream.order(seed=seed, epoch=epoch)
    assert sorted(expected) == list(range(NUM_TRAIN))
    assert train_order(stream, seed=seed, epoch=epoch) == expected[: NUM_TRAIN // 8 * 8].tolist()


def test_what_follows_is_the_same_from_every_step_of_two_epochs(info):
    stream = StreamedSplit(info, "train", image_size=SIZE, window_bytes=info.split("train").num_bytes // 8)
    num_steps = NUM_TRAIN // 32
    whole = [train_order(stream, batch_size=32, epoch=epoch) for epoch in range(2)]
    for step in range(2 * num_steps):
        epoch, start_step = divmod(step, num_steps)
        rest = train_order(stream, batch_size=32, epoch=epoch, start_step=start_step)
        assert rest == whole[epoch][32 * start_step :]


def test_replicas_share_the_batches_of_one_device(source):
    assert train_order(source, num_replicas=2) == train_order(source)
    batches = list(make_train_batches(source, seed=3, epoch=0, batch_size=8, num_replicas=2, start_step=60))
    assert [batch[0].shape for batch in batches] == [(4, SIZE, SIZE, 3)] * 8


def test_shuffling_mixes_the_shards(source):
    """Neighbours in the files are no neighbours in training, and a batch comes from everywhere."""
    seen = np.array(train_order(source))
    assert np.mean(np.abs(np.diff(seen)) < 16) < 0.4  # A block is a quarter of a window here.
    assert abs(np.corrcoef(seen[:-1], seen[1:])[0, 1]) < 0.35
    shards = seen * 3 // NUM_TRAIN
    assert np.mean([len(set(batch)) > 1 for batch in shards.reshape(-1, 8)]) > 0.9


def test_records_of_a_block_come_in_no_order(source):
    seen = np.array(train_order(source))
    neighbours = [seen[seen // 16 == block] for block in range(10)]
    ascending = np.mean([np.mean(np.diff(numbers) > 0) for numbers in neighbours])
    assert 0.3 < ascending < 0.7


def test_batches_are_uint8_of_one_shape(source):
    for images, labels in make_train_batches(source, seed=1, epoch=0, batch_size=8):
        assert (images.shape, images.dtype) == ((8, SIZE, SIZE, 3), tf.uint8)
        assert (labels.shape, labels.dtype) == ((8,), tf.int32)


def test_labels_belong_to_their_pictures(source):
    for images, labels in make_train_batches(source, seed=1, epoch=0, batch_size=8):
        assert images.numpy()[:, 0, 0, 2].tolist() == labels.numpy().tolist()


@pytest.mark.parametrize("num_replicas", [1, 2, 4])
def test_evaluation_gives_each_picture_once_and_pads(source, num_replicas):
    batches = list(make_eval_batches(source, batch_size=8, num_replicas=num_replicas))
    assert len(batches) == 65 * num_replicas
    images, labels, weights = (np.concatenate([batch[i].numpy() for batch in batches]) for i in range(3))
    assert weights.tolist() == [1.0] * NUM_TRAIN + [0.0] * 3
    assert numbers(images[:NUM_TRAIN]) == list(range(NUM_TRAIN))
    assert labels[:NUM_TRAIN].tolist() == [n % 3 for n in range(NUM_TRAIN)]
    assert not images[NUM_TRAIN:].any()


def test_evaluation_of_whole_batches_gets_none_of_black_pictures(make_dataset):
    source = StreamedSplit(make_dataset(num_validation=16), "validation", image_size=SIZE)
    assert [batch[2].numpy().sum() for batch in make_eval_batches(source, batch_size=8)] == [8, 8]


@pytest.mark.parametrize("positions", [[], [5], [516, 0, 17, 16, 15, 40], [*range(517)]])
def test_chosen_pictures_come_in_the_order_of_the_choice(info, positions):
    stream = StreamedSplit(info, "train", image_size=SIZE)
    batches = list(stream.chosen_batches(np.asarray(positions, np.int64), batch_size=4))
    assert [len(batch[1]) for batch in batches][:-1] == [4] * ((len(positions) - 1) // 4)
    assert order(batches) == positions


def test_names_of_the_pictures_of_a_step(source, info):
    numbers = train_order(source)[16:24]
    names = record_names(source, info, seed=3, epoch=0, start=16, count=8)
    assert names == sorted(f"a/{number}.jpg" for number in numbers)


def test_stored_pictures_are_made_smaller_without_overshooting(info):
    source = StreamedSplit(info, "validation", image_size=8)
    images = next(iter(make_eval_batches(source, batch_size=21)))[0].numpy()
    assert images.shape == (21, 8, 8, 3)
    # The lower right is flat, 10 times the label.
    assert images[:, -1, -1, 0].tolist() == [10 * (n % 3) for n in range(21)]


class Watched:
    """Takes the place of a source, and counts the batches that were made."""

    def __init__(self, split, num_batches: int) -> None:
        self.split = split
        self.is_closed = False
        self._num_batches = num_batches

    def shuffled_batches(self, *, seed, epoch, start, batch_size):
        try:
            for _ in range(self._num_batches):
                yield np.zeros([batch_size, SIZE, SIZE, 3], np.uint8), np.zeros(batch_size, np.int32)
        finally:
            self.is_closed = True


def test_a_source_that_is_left_early_is_closed(info):
    source = Watched(info.split("train"), NUM_TRAIN // 8)
    batches = make_train_batches(source, seed=1, epoch=0, batch_size=8)
    for _ in range(3):
        next(batches)
    assert not source.is_closed
    batches.close()
    assert source.is_closed


def test_a_source_that_comes_up_short_ends_so(info):
    """The loop, and evaluation, compare what they saw with the metadata."""
    batches = make_train_batches(Watched(info.split("train"), 3), seed=1, epoch=0, batch_size=8)
    assert len(list(batches)) == 3


def test_aligned_memory_is_taken_as_it_is_and_any_other_copied():
    aligned = Buffers().take((2, SIZE, SIZE, 3))
    unaligned = np.zeros(65, np.uint8)[1:]
    unaligned = unaligned[1:] if unaligned.ctypes.data % 64 == 0 else unaligned
    for array, is_shared in ((aligned, True), (unaligned, False)):
        array[:] = 1
        tensor = as_tensor(array)
        array[:] = 2
        assert set(tensor.numpy().ravel().tolist()) == {2 if is_shared else 1}
