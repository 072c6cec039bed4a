import logging

import pytest

from shardstream.train.data.cache import Free, choose_tier, decoded_bytes, make_source
from shardstream.train.data.cached_split import CachedSplit
from shardstream.train.data.device_cache import DeviceSplit
from shardstream.train.data.input_pipeline import StreamedSplit

GB = 10**9


@pytest.fixture(scope="module")
def info(make_dataset):
    return make_dataset()


def test_decoded_bytes(info):
    assert decoded_bytes(info.splits.values(), 100) == (70 + 21) * 100 * 100 * 3


@pytest.mark.parametrize(
    ("free", "tier"),
    [
        # With a GPU: the pictures have to fit beside the model, and into the host's memory in the first epoch.
        ({"device": 21, "memory": 20}, "device"),
        ({"device": 20, "memory": 20}, "memory"),
        ({"device": 80, "memory": 10, "disk": 20}, "disk"),
        ({"device": 1, "memory": 20}, "memory"),
        # Where the CPU trains, the model is in the memory of the host.
        ({"memory": 21}, "memory"),
        ({"memory": 20, "disk": 20}, "disk"),
        ({"memory": 1, "disk": 19}, "none"),
        ({"memory": 0, "disk": 0}, "none"),
    ],
)
def test_auto_takes_the_quickest_tier_that_fits(free, tier):
    sizes = {name: size * GB for name, size in {"memory": 0, "disk": 0, **free}.items()}
    assert choose_tier(14 * GB, GB, {"this host": Free(**{"device": None, **sizes})}) == tier


@pytest.mark.parametrize(
    ("device", "words"), [(None, "no GPU"), (15 * GB, "15.00 GB of each GPU")], ids=["CPU", "GPU"]
)
def test_auto_says_why_in_one_line(caplog, device, words):
    with caplog.at_level(logging.INFO, logger="train"):
        tier = choose_tier(GB // 4, 2 * GB, {"this host": Free(device, 3 * GB, 40 * GB)})
    line = (
        f"cache: {tier} for 0.25 GB of decoded pictures, as {words}, 3.00 GB of memory and 40.00 GB of disk are free, "
        "and the model needs about 2.00 GB"
    )
    assert caplog.messages == [line]


A, B, C = Free(40 * GB, 30 * GB, 0), Free(20 * GB, 30 * GB, 90 * GB), Free(None, 9 * GB, 90 * GB)


@pytest.mark.parametrize(
    ("hosts", "tier", "where"),
    [
        ({"a": A, "b": A}, "device", "a 40.00 GB of each GPU"),
        ({"a": A, "b": B}, "memory", "b 20.00 GB of each GPU"),
        ({"b": B, "c": C}, "disk", "c no GPU, 9.00 GB of memory"),
        # Each has room for some tier, and there is none that fits on all.
        ({"a": A, "b": B, "c": C}, "none", "a 40.00 GB of each GPU, 30.00 GB of memory and 0.00 GB of disk"),
    ],
)
def test_of_several_hosts_the_one_that_has_too_little_decides_for_all(caplog, hosts, tier, where):
    with caplog.at_level(logging.INFO, logger="train"):
        assert choose_tier(14 * GB, GB, hosts) == tier
    (line,) = caplog.messages
    assert line.startswith(f"cache: {tier} for 14.00 GB of decoded pictures, as on {where}")


@pytest.mark.parametrize(
    ("tier", "kind"),
    [("none", StreamedSplit), ("memory", CachedSplit), ("disk", CachedSplit), ("device", DeviceSplit)],
)
def test_source_of_a_tier(info, tier, kind, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = make_source(info, "validation", tier=tier, image_size=16)
    assert type(source) is kind
    assert source.split.num_examples == 21
    # Without --cache-dir, where programs keep such things.
    assert [path.name for path in tmp_path.iterdir()] == ["shardstream"] * (tier == "disk")
