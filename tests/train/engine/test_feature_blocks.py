import dataclasses

import numpy as np
import pytest

from shardstream.ingest.common.errors import DatasetError
from shardstream.train.data.dataset import Dataset
from shardstream.train.engine import feature_blocks
from shardstream.train.engine.feature_blocks import SplitFeatures
from shardstream.train.engine.feature_cache import FeatureCache
from shardstream.train.engine.features import (
    BATCH_SIZE,
    THUMBNAIL_SIZE,
    Features,
    extract_features,
    named_batches,
)

NUM_IMAGES = 150


@pytest.fixture(autouse=True)
def _blocks_of_two_batches(monkeypatch):
    monkeypatch.setattr(feature_blocks, "BLOCK_SIZE", 2 * BATCH_SIZE)


@pytest.fixture(scope="module")
def photos(make_dataset):
    return make_dataset(num_train=NUM_IMAGES)


class Pass:
    """Passes over a split; `extracted` are the numbers of the images whose features were computed, in order."""

    def __init__(self, info, cache, **options):
        self.data, self.cache, self.options = Dataset(info), cache, options
        self.extracted = []

    def extract(self, images):
        numbers = images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 0, 1]
        self.extracted += numbers.tolist()
        return np.stack([numbers, numbers * 2], axis=1).astype(np.float16)

    def batches(self, numbers):
        return named_batches(self.data, "train", numbers, image_size=16, **self.options)

    def features(self, num_examples=NUM_IMAGES, after_batch=lambda: None):
        blocks = SplitFeatures({"split": "train"}, num_examples=num_examples, cache=self.cache)
        if blocks.missing:
            blocks.compute(self.batches, [self.extract], after_batch=after_batch)
        return blocks.features


def assert_same(mine, theirs):
    assert mine.values.tobytes() == theirs.values.tobytes()
    assert mine.thumbnails.tobytes() == theirs.thumbnails.tobytes()
    assert mine.labels.tolist() == theirs.labels.tolist()
    assert mine.names == theirs.names


def test_blocks_are_the_features_of_an_unbroken_pass(photos, tmp_path):
    passes = Pass(photos, FeatureCache(tmp_path))
    whole = extract_features(passes.batches(np.arange(NUM_IMAGES)), passes.extract, num_examples=NUM_IMAGES)
    assert passes.extracted == list(range(NUM_IMAGES))
    passes.extracted = []
    assert_same(passes.features(), whole)
    assert passes.extracted == list(range(NUM_IMAGES))
    assert len(list(tmp_path.iterdir())) == 3
    assert whole.names == [f"a/{number}.jpg" for number in range(NUM_IMAGES)]
    assert_same(passes.features(), whole)
    assert len(passes.extracted) == NUM_IMAGES


class StopError(Exception):
    pass


def test_a_pass_that_was_stopped_computes_only_the_missing_blocks(photos, tmp_path):
    passes = Pass(photos, FeatureCache(tmp_path))

    def stop():
        if len(passes.extracted) > 3 * BATCH_SIZE:
            raise StopError

    with pytest.raises(StopError):
        passes.features(after_batch=stop)
    whole = Pass(photos, FeatureCache(None)).features()
    again = Pass(photos, passes.cache)
    assert_same(again.features(), whole)
    assert again.extracted == list(range(2 * BATCH_SIZE, NUM_IMAGES))


def test_a_block_that_is_lost_is_computed_alone(photos, tmp_path):
    passes = Pass(photos, FeatureCache(tmp_path))
    whole = passes.features()
    for number, path in enumerate(sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)):
        content = path.read_bytes()
        path.write_bytes(b"")
        passes.extracted = []
        assert_same(passes.features(), whole)
        assert passes.extracted == list(range(NUM_IMAGES))[number * 64 : (number + 1) * 64]
        assert path.read_bytes() == content


def test_what_is_done_and_what_is_kept(photos, tmp_path):
    found = []
    for cache in (FeatureCache(tmp_path), FeatureCache(None)):
        passes, seen = Pass(photos, cache), []
        blocks = SplitFeatures({}, num_examples=NUM_IMAGES, cache=cache)
        blocks.compute(
            passes.batches,
            [passes.extract],
            after_batch=lambda seen=seen, blocks=blocks: seen.append((blocks.num_done, blocks.num_kept)),
        )
        found.append([*seen, (blocks.num_done, blocks.num_kept)])
    done = [32, 64, 96, 128, 150, 150]
    assert found[0] == list(zip(done, [0, 0, 64, 64, 128, 150], strict=True))
    assert found[1] == [(number, 0) for number in done]
    again = SplitFeatures({}, num_examples=NUM_IMAGES, cache=FeatureCache(tmp_path))
    assert (again.missing, again.num_done, again.num_kept) == ([], 150, 150)


def test_skipped_records_are_left_out(photos, tmp_path):
    """Blocks count the images that are left."""
    passes = Pass(photos, FeatureCache(tmp_path), max_bad_records=2)
    source = passes.data.source("train", 16)
    bad = type(source.bad).of(source.index, np.array([3, 70]))
    passes.data._bad_records["train"] = type(bad)(bad.positions, bad.replacements, ("", ""))
    features = passes.features(NUM_IMAGES - 2)
    expected = [number for number in range(NUM_IMAGES) if number not in (3, 70)]
    assert passes.extracted == features.values[:, 0].tolist() == expected
    assert features.names == [f"a/{number}.jpg" for number in expected]


def test_images_without_names_keep_their_places():
    one = Features(
        np.zeros((1, 4), np.float16),
        np.zeros(1, np.int32),
        np.zeros((1, THUMBNAIL_SIZE**2 * 3), np.float16),
        [""],
    )
    read = Features.from_arrays(one.arrays())
    features = Features.empty(3, like=one)
    for start in range(3):
        features.put(start, read)
    assert features.names == ["", "", ""]


def test_names_with_a_nul_are_one_name_each():
    batch = np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2), [b"a\0b", b"c"]
    found = extract_features([batch], lambda images: np.zeros((len(images), 4), np.float16), num_examples=2)
    assert Features.from_arrays(found.arrays()).names == ["a?b", "c"]


def test_a_block_of_other_features_is_refused(photos, tmp_path):
    cache = FeatureCache(tmp_path)
    passes = Pass(photos, cache)
    whole = passes.features()
    identity = {"split": "train", "block": 1, "block_size": feature_blocks.BLOCK_SIZE}
    part = whole.part(BATCH_SIZE * 2, BATCH_SIZE * 4)
    cache.save(identity, dataclasses.replace(part, values=part.values[:, :1]))
    with pytest.raises(DatasetError, match="some images are 2 numbers, of others 1"):
        passes.features()
