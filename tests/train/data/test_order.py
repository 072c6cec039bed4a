import pytest

from shardstream.ingest.dataset.metadata import ShardInfo, SplitInfo
from shardstream.train.data.order import (
    Blocks,
    EpochPlan,
    blocks_per_window,
    epoch_permutation,
    plan_epoch,
    stream_order,
)


def make_split(*sizes: int) -> SplitInfo:
    shards = tuple(
        ShardInfo(
            filename=f"{i}",
            num_examples=size,
            num_bytes=size * 100,
            sha256="",
            block_offsets=tuple(range(0, size * 100, 1600)),
            block_checksums=(0,) * len(range(0, size, 16)),
        )
        for i, size in enumerate(sizes)
    )
    return SplitInfo(name="train", shards=shards, class_counts=(sum(sizes),))


def keys(blocks: Blocks) -> list[tuple[int, int, int]]:
    return list(zip(blocks.shards.tolist(), blocks.offsets.tolist(), blocks.counts.tolist(), strict=True))


def test_blocks_of_a_split():
    assert keys(Blocks.of(make_split(40, 16, 1))) == [
        (0, 0, 16),
        (0, 1600, 16),
        (0, 3200, 8),  # The last block of a shard has what is left.
        (1, 0, 16),
        (2, 0, 1),
    ]


def make_plan(*, epoch: int = 0, seed: int = 5, start: int = 0) -> EpochPlan:
    return plan_epoch(
        Blocks.of(make_split(100, 77, 160)), blocks_per_window=4, seed=seed, epoch=epoch, start=start
    )


def test_plan_reads_every_block_once():
    blocks = Blocks.of(make_split(100, 77, 160))
    plan = make_plan()
    assert sorted(keys(plan.blocks)) == keys(blocks)
    assert keys(plan.blocks) != keys(blocks)
    assert plan.window_starts.tolist() == [0, 4, 8, 12, 16, 20]


def test_windows_deliver_each_of_their_records_once():
    plan = make_plan()
    windows = list(plan.windows())
    assert [key for blocks, _ in windows for key in keys(blocks)] == keys(plan.blocks)
    for blocks, order in windows:
        assert sorted(order) == list(range(blocks.counts.sum()))
    assert (windows[0][1][:50] != windows[1][1][:50]).any()


def test_stream_order_counts_through_the_files():
    # Changing this list changes the order in every run that is resumed.
    assert stream_order(make_plan()).tolist()[:6] == [49, 48, 56, 241, 62, 245]
    assert sorted(stream_order(make_plan())) == list(range(337))
    blocks, order = next(make_plan().windows())
    in_file_order = [
        first + i for first, count in zip(blocks.firsts, blocks.counts, strict=True) for i in range(count)
    ]
    assert stream_order(make_plan())[: len(order)].tolist() == [in_file_order[i] for i in order]


def test_plan_is_a_pure_function_of_seed_and_epoch():
    # Changing this list changes the order in every run that is resumed.
    assert make_plan().blocks.offsets.tolist()[:6] == [0, 0, 6400, 4800, 14400, 9600]
    assert keys(make_plan().blocks) == keys(make_plan().blocks)
    assert keys(make_plan(epoch=1).blocks) != keys(make_plan().blocks)
    assert keys(make_plan(seed=6).blocks) != keys(make_plan().blocks)


@pytest.mark.parametrize("start", [0, 1, 63, 64, 65, 200, 336])
def test_plan_from_the_middle_starts_at_the_window_that_holds_it(start):
    whole, rest = make_plan(), make_plan(start=start)
    skipped = len(whole.blocks) - len(rest.blocks)
    assert keys(rest.blocks) == keys(whole.blocks)[skipped:]
    assert int(whole.blocks.counts[:skipped].sum()) + rest.skip == start
    assert rest.skip < int(rest.blocks.counts[:4].sum())  # Never more than a window is read in vain.
    assert stream_order(rest).tolist() == stream_order(whole).tolist()[start:]


@pytest.mark.parametrize(("window_bytes", "blocks"), [(1, 1), (1600, 1), (16000, 10), (2**40, 2048)])
def test_window_is_given_in_bytes_and_has_no_end_of_small_records(window_bytes, blocks):
    assert blocks_per_window(make_split(160, 160), window_bytes) == blocks


def test_epoch_permutation():
    order = epoch_permutation(1000, seed=1, epoch=2)
    assert sorted(order.tolist()) == list(range(1000))
    assert (order == epoch_permutation(1000, seed=1, epoch=2)).all()
    assert (order != epoch_permutation(1000, seed=1, epoch=3)).any()
    assert (order != epoch_permutation(1000, seed=2, epoch=2)).any()
