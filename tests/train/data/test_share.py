import numpy as np
import pytest

from shardstream.ingest.common.errors import ConfigError
from shardstream.train.data.input_pipeline import StreamedSplit, make_eval_batches, make_train_batches
from shardstream.train.data.share import Share, eval_steps, steps_per_epoch

SIZE = 16
NUM_TRAIN, NUM_VALIDATION = 517, 50  # 33 blocks in 3 shards, and 4 blocks in one.


@pytest.fixture(scope="module")
def info(make_dataset):
    return make_dataset(num_train=NUM_TRAIN, num_validation=NUM_VALIDATION)


def numbers(dataset) -> list[int]:
    """Which pictures come, by what their first pixel says; those of weight 0 left out."""
    found = []
    for images, _, *weights in dataset:
        pixels = np.asarray(images)[np.asarray(weights[0]) > 0 if weights else slice(None)].astype(int)
        found += (pixels[:, 0, 0, 0] * 256 + pixels[:, 0, 0, 1]).tolist()
    return found


@pytest.mark.parametrize("num_workers", [1, 2, 3, 5, 30])
def test_shares_are_all_of_a_split_once_in_consecutive_blocks(info, num_workers):
    shares = [Share(worker, num_workers).of(info.split("train")) for worker in range(num_workers)]
    assert sum(share.num_examples for share in shares) == NUM_TRAIN
    assert max(share.num_examples for share in shares) - min(share.num_examples for share in shares) < 32
    batches = [
        StreamedSplit(info, "train", image_size=SIZE, share=Share(worker, num_workers)).ordered_batches(
            batch_size=7
        )
        for worker in range(num_workers)
    ]
    assert [number for part in batches for number in numbers(part)] == list(range(NUM_TRAIN))


def test_a_share_of_whole_shards_is_those_shards(info):
    assert Share(0, 1).of(info.split("train")) is info.split("train")
    shares = [Share(worker, 2).of(info.split("train")) for worker in range(2)]
    first, last = (info.split("train").shards[i] for i in (0, 2))
    assert shares[0].shards[0] is first
    assert shares[1].shards[-1] is last
    assert sum(share.num_bytes for share in shares) == pytest.approx(info.split("train").num_bytes, abs=2)


@pytest.mark.parametrize("num_workers", [2, 3])
@pytest.mark.parametrize("epoch", [0, 4])
def test_workers_train_on_their_own_pictures_in_equal_steps(info, num_workers, epoch):
    split = info.split("train")
    num_steps = steps_per_epoch(split, 8 * num_workers, num_workers)
    assert num_steps <= NUM_TRAIN // (8 * num_workers)
    seen = []
    for worker in range(num_workers):
        share = Share(worker, num_workers)
        source = StreamedSplit(info, "train", image_size=SIZE, share=share)
        mine = numbers(make_train_batches(source, seed=3, epoch=epoch, batch_size=8, num_steps=num_steps))
        assert len(mine) == len(set(mine)) == 8 * num_steps
        assert sorted(mine) != mine
        rest = make_train_batches(
            source, seed=3, epoch=epoch, batch_size=8, num_steps=num_steps, start_step=5
        )
        assert numbers(rest) == mine[40:]
        own = numbers(source.ordered_batches(batch_size=50))
        assert set(mine) <= set(own)
        seen += mine
    assert len(seen) == len(set(seen)) >= NUM_TRAIN - num_workers * (8 + 32)


@pytest.mark.parametrize(("num_workers", "num_replicas"), [(1, 1), (2, 1), (2, 2), (3, 1), (4, 2)])
def test_evaluation_sees_each_picture_once_over_all_workers(info, num_workers, num_replicas):
    num_steps = eval_steps(info.split("validation"), 8 * num_workers, num_workers)
    seen = []
    for worker in range(num_workers):
        source = StreamedSplit(info, "validation", image_size=SIZE, share=Share(worker, num_workers))
        batches = [*make_eval_batches(source, batch_size=8, num_replicas=num_replicas, num_steps=num_steps)]
        assert len(batches) == num_steps * num_replicas
        seen += numbers(batches)
    assert sorted(seen) == list(range(NUM_VALIDATION))


def test_more_workers_than_blocks_are_refused(info):
    sentence = r"split 'validation' has 50 pictures, too few for 5 workers: each reads whole blocks of 16"
    with pytest.raises(ConfigError, match=sentence):
        Share(0, 5).of(info.split("validation"))
    with pytest.raises(ConfigError, match=sentence):
        steps_per_epoch(info.split("validation"), 5, 5)


def test_one_worker_does_all_whole_batches(info):
    split = info.split("train")
    for batch_size in (1, 8, 100, 517):
        assert steps_per_epoch(split, batch_size) == NUM_TRAIN // batch_size
        assert eval_steps(split, batch_size) == int(np.ceil(NUM_TRAIN / batch_size))
