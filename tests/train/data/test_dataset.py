import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.train.data.dataset import load_dataset
from shardstream.train.data.sampling import EpochSampler

STEPS = 1100 // 16


def flat(lists):
    return [item for inner in lists for item in inner]


def test_batches_have_static_shapes(numbered):
    images, labels = numbered.train_batches(16, seed=1).element_spec
    assert (images.shape, images.dtype) == ([16, 16, 16, 3], tf.uint8)
    assert (labels.shape, labels.dtype) == ([16], tf.int32)
    images, _ = numbered.train_batches(16, seed=1, shard=(1, 4), image_size=8).element_spec
    assert images.shape == [4, 8, 8, 3]


def test_batches_are_those_of_the_sampler(numbered, train_numbers):
    split = numbered.splits["train"]
    sampler = EpochSampler.make(split.num_examples, num_bytes=split.num_bytes, batch_size=16, seed=3)
    expected = [sampler.positions(step).tolist() for step in range(2 * STEPS + 3)]
    assert train_numbers(numbered, 2 * STEPS + 3) == expected


def test_labels_belong_to_their_images(numbered):
    for images, labels in numbered.train_batches(16, seed=3).take(5):
        assert images[:, 0, 0, 2].numpy().tolist() == labels.numpy().tolist()


@pytest.mark.parametrize("cache", ["none", "disk"])
def test_a_path_need_not_be_utf8(numbered, train_numbers, tmp_path, cache):
    path = tmp_path / os.fsdecode(b"data_\xbd\xc4")
    shutil.copytree(numbered.info.data_dir, path)
    copied = load_dataset(path, cache_dir=path)
    assert train_numbers(copied, 3, cache=cache) == train_numbers(numbered, 3)


def test_every_iterator_starts_anew(numbered, numbers_of):
    batches = numbered.train_batches(16, seed=3)
    first, second = iter(batches), iter(batches)
    for _ in range(3):
        assert numbers_of(next(first)[0]) == numbers_of(next(second)[0])


@pytest.mark.parametrize("start", [1, STEPS - 1, STEPS, 2 * STEPS + 5])
@pytest.mark.parametrize("cache", ["none", "memory"])
def test_start_step_gives_the_tail(numbered, train_numbers, start, cache):
    whole = train_numbers(numbered, start + 8)
    assert train_numbers(numbered, 8, start_step=start, cache=cache) == whole[start:]


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("cache", ["none", "memory"])
def test_shards_joined_are_the_global_batch(numbered, train_numbers, count, cache):
    parts = [train_numbers(numbered, 70, shard=(i, count), cache=cache) for i in range(count)]
    joined = [flat(step) for step in zip(*parts, strict=True)]
    assert joined == train_numbers(numbered, 70)


@pytest.mark.parametrize("cache", ["memory", "disk", "auto"])
def test_tiers_give_the_same_batches(numbered, train_numbers, tmp_path, cache):
    assert train_numbers(numbered, 150, cache=cache, cache_dir=tmp_path) == train_numbers(numbered, 150)


def test_a_cache_is_filled_once_with_progress(copied, train_numbers):
    calls = []

    def note(done, total):
        calls.append((done, total))

    train_numbers(copied, 1, cache="memory", progress=note)
    assert calls[-1] == (1100, 1100)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    calls.clear()
    train_numbers(copied, 1, cache="memory", progress=note, seed=9, batch_size=20)
    list(copied.eval_batches("train", batch_size=100, cache="memory", progress=note))
    assert not calls


def test_a_host_caches_its_own_part(copied, train_numbers):
    totals = set()
    for i in range(2):
        train_numbers(copied, 1, cache="memory", shard=(i, 2), progress=lambda done, total: totals.add(total))
    assert totals == {550}


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_evaluation_has_each_example_once_in_file_order(numbered, numbers_of, cache):
    batches = list(numbered.eval_batches("validation", batch_size=16, cache=cache))
    assert [len(labels) for _, labels, _ in batches] == [16] * 6 + [5]
    assert flat(numbers_of(images) for images, _, _ in batches) == list(range(101))
    assert {float(weight) for _, _, weights in batches for weight in weights} == {1.0}


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("cache", ["none", "memory"])
def test_evaluation_on_hosts_has_each_example_once(numbered, numbers_of, count, pad, cache):
    seen, num_batches = [], set()
    for i in range(count):
        options = {"batch_size": 24, "shard": (i, count), "pad_last_batch": pad, "cache": cache}
        batches = list(numbered.eval_batches("validation", **options))
        num_batches.add(len(batches))
        for images, _, weights in batches:
            assert not pad or len(weights) == 24 // count
            seen += [
                number for number, weight in zip(numbers_of(images), weights, strict=True) if weight == 1
            ]
    assert sorted(seen) == list(range(101))
    if pad:
        assert num_batches == {5}


def test_padded_batches_have_static_shapes_and_black_images(numbered):
    batches = numbered.eval_batches("validation", batch_size=16, pad_last_batch=True, with_keys=True)
    assert [spec.shape.as_list() for spec in batches.element_spec] == [[16, 16, 16, 3], [16], [16], [16]]
    *_, (images, labels, weights, keys) = batches
    assert weights.numpy().tolist() == [1] * 5 + [0] * 11
    assert not images[5:].numpy().any()
    assert not labels[5:].numpy().any()
    assert keys[5:].numpy().tolist() == [b""] * 11


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_keys_are_file_names(numbered, cache):
    keys = [
        batch[3].numpy().tolist()
        for batch in numbered.eval_batches("validation", batch_size=50, with_keys=True, cache=cache)
    ]
    assert flat(keys) == [b"a/%d.jpg" % number for number in range(101)]


def test_facts(numbered):
    assert numbered.class_names == ("class0", "class1", "class2")
    assert numbered.splits["train"].num_examples == 1100
    assert numbered.image_size == 16
    assert numbered.steps_per_epoch(16) == STEPS
    assert [path.name for path in numbered.files("validation")] == [
        "photos-validation.tfrecord-00000-of-00001"
    ]
    assert numbered.fingerprint == numbered.info.fingerprint


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda d: d.train_batches(16, seed=1, split="dev"),
            DatasetError,
            "no split 'dev'; there is train, validation",
        ),
        (lambda d: d.eval_batches("dev", batch_size=16), DatasetError, "no split 'dev'"),
        (lambda d: d.files("dev"), DatasetError, "no split 'dev'"),
        (
            lambda d: d.train_batches(1101, seed=1),
            DatasetError,
            "split 'train': an epoch has 0 steps: batch_size 1101",
        ),
        (lambda d: d.steps_per_epoch(1101), DatasetError, "an epoch has 0 steps"),
        (lambda d: d.train_batches(0, seed=1), ConfigError, "batch_size must be positive"),
        (lambda d: d.eval_batches("train", batch_size=0), ConfigError, "batch_size must be positive"),
        (
            lambda d: d.train_batches(16, seed=1, shard=(0, 3)),
            ConfigError,
            "batch_size 16 is not divisible by the 3",
        ),
        (
            lambda d: d.eval_batches("train", batch_size=16, shard=(0, 3)),
            ConfigError,
            "not divisible by the 3",
        ),
        (lambda d: d.train_batches(16, seed=1, shard=(3, 3)), ConfigError, "shard must be"),
        (lambda d: d.train_batches(16, seed=-1), ConfigError, "seed must not be negative"),
        (lambda d: d.train_batches(16, seed=1.5), ConfigError, "seed must be a whole number, got 1.5"),
        (lambda d: d.train_batches(16, seed=None), ConfigError, "seed must be a whole number, got None"),
        (lambda d: d.train_batches("16", seed=1), ConfigError, "batch_size must be a whole number, got '16'"),
        (lambda d: d.steps_per_epoch(1.5), ConfigError, "batch_size must be a whole number, got 1.5"),
        (lambda d: d.eval_batches("train", batch_size=10**30), ConfigError, "batch_size must be at most"),
        (lambda d: d.train_batches(16, seed=1, start_step=10**30), ConfigError, "start_step must be at most"),
        (
            lambda d: d.train_batches(16, seed=1, image_size=10**6),
            ConfigError,
            "image_size must be at most 8192",
        ),
        (
            lambda d: d.train_batches(16, seed=1, image_size=32.5),
            ConfigError,
            "image_size must be a whole number",
        ),
        (lambda d: d.train_batches(16, seed=1, shard=3), ConfigError, "shard must be"),
        (
            lambda d: d.train_batches(16, seed=1, shard=("a", 2)),
            ConfigError,
            "shard index must be a whole number",
        ),
        (
            lambda d: d.train_batches(16, seed=1, start_step=-1),
            ConfigError,
            "start_step must not be negative",
        ),
        (lambda d: d.train_batches(16, seed=1, image_size=0), ConfigError, "image_size must be positive"),
        (
            lambda d: d.train_batches(16, seed=1, max_bad_records=-1),
            ConfigError,
            "max_bad_records must not be",
        ),
        (
            lambda d: d.train_batches(16, seed=1, cache="ram"),
            ConfigError,
            "cache must be one of none, memory",
        ),
        (lambda d: d.train_batches(16), TypeError, "seed"),
    ],
)
def test_refusals(numbered, call, error, message):
    with pytest.raises(error, match=message):
        call(numbered)


def test_batches_on_a_device(numbered, numbers_of):
    batches = numbered.train_batches(16, seed=3, device="/CPU:0")
    images, _ = next(iter(batches))
    assert numbers_of(images) == numbers_of(next(iter(numbered.train_batches(16, seed=3)))[0])


def test_two_replicas_get_the_global_batch(numbered, numbers_of):
    devices = tf.config.list_logical_devices("CPU")
    strategy = tf.distribute.MirroredStrategy([device.name for device in devices[:2]])
    batches = strategy.experimental_distribute_dataset(numbered.train_batches(16, seed=3).take(3))
    found = [strategy.experimental_local_results(images) for images, _ in batches]
    plain = numbered.train_batches(16, seed=3).take(3)
    assert [flat(map(numbers_of, values)) for values in found] == [numbers_of(images) for images, _ in plain]
    cached = numbered.train_batches(16, seed=3, cache="memory").take(1)
    for images, _ in strategy.experimental_distribute_dataset(cached):
        assert np.asarray(strategy.experimental_local_results(images)[0]).dtype == np.uint8


def test_the_folder_of_caches_may_be_a_string(copied, train_numbers, tmp_path):
    assert train_numbers(copied, 1, cache="disk", cache_dir=str(tmp_path)) == train_numbers(copied, 1)
    assert list(tmp_path.glob("*.images"))
