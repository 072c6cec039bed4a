import logging

import pytest

from train import cache
from train.cache import CachedSplit, choose_tier, decoded_bytes, make_source
from train.input_pipeline import StreamedSplit


@pytest.fixture(scope="module")
def info(make_dataset):
    return make_dataset()


def test_decoded_bytes(info):
    assert decoded_bytes(info.splits.values(), 100) == (70 + 21) * 100 * 100 * 3


@pytest.mark.parametrize(
    ("free", "tier", "line"),
    [
        (2 * 91 * 768, "memory", "cache: memory, as the decoded pictures take 0.00 GB of the 0.00 GB"),
        (2 * 91 * 768 - 2, "none", "cache: none, as the decoded pictures take 0.00 GB of the 0.00 GB"),
    ],
)
def test_auto_takes_memory_only_where_it_fits_well(info, monkeypatch, caplog, free, tier, line):
    monkeypatch.setattr(cache, "free_memory_bytes", lambda: free)
    with caplog.at_level(logging.INFO, logger="train"):
        assert choose_tier("auto", info.splits.values(), 16) == tier
    assert [message[: len(line)] for message in caplog.messages] == [line]


@pytest.mark.parametrize("tier", ["none", "memory"])
def test_a_tier_that_was_asked_for_is_used_without_a_word(info, caplog, tier):
    with caplog.at_level(logging.INFO, logger="train"):
        assert choose_tier(tier, info.splits.values(), 10**6) == tier
    assert caplog.messages == []


@pytest.mark.parametrize(("tier", "kind"), [("none", StreamedSplit), ("memory", CachedSplit)])
def test_source_of_a_tier(info, tier, kind):
    source = make_source(info, "validation", tier=tier, image_size=16)
    assert type(source) is kind
    assert source.split.num_examples == 21


def test_the_cache_reads_no_file_again(info):
    source = make_source(info, "validation", tier="memory", image_size=16)
    path = info.data_dir / info.split("validation").shards[0].filename
    content = path.read_bytes()
    path.unlink()
    try:
        assert sum(len(labels) for _, labels in source.ordered_batches(batch_size=4)) == 21
    finally:
        path.write_bytes(content)
