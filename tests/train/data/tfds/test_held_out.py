import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.train.data.held_out import hold_out
from shardstream.train.data.tfds_folder import load_tfds_folder, open_tfds_index
from shardstream.train.data.tfds_index import labels_of


@pytest.fixture
def folder(tfds_folder) -> Path:
    return tfds_folder


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def alone(tmp_path_factory, write_tfds, tfds_examples) -> Path:
    """A dataset with a train split and no other."""
    return write_tfds(tmp_path_factory.mktemp("alone"), {"train": tfds_examples(0, 200)}, num_shards=4)


def test_a_train_split_alone_asks_for_a_share_before_anything_is_loaded(alone, tmp_path):
    program = f"""
import sys
from pathlib import Path
from shardstream.ingest.common.errors import ConfigError
from shardstream.train.data.tfds_folder import load_tfds_folder
try:
    load_tfds_folder(Path({str(alone)!r}), Path({str(tmp_path)!r}))
except ConfigError as error:
    print(error, "tensorflow" in sys.modules, "tensorflow_datasets" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "--validation-share" in result.stdout, result.stderr
    assert result.stdout.endswith("False False\n")


def test_a_held_out_share_and_the_rest_are_the_train_split(alone, cache, payloads):
    info = load_tfds_folder(alone, cache, validation_share=0.25, seed=7)
    held, rest = (open_tfds_index(info, name) for name in ("validation", "train"))
    assert sorted([*held.selected, *rest.selected]) == list(range(200))
    assert 30 < held.num_examples < 70
    for name, index in (("validation", held), ("train", rest)):
        assert index.selected.dtype == np.int64
        assert (np.diff(index.selected) > 0).all()
        split = info.split(name)
        assert split.num_examples == index.num_examples == sum(split.class_counts)
        assert np.bincount(labels_of(index)).tolist() == list(split.class_counts)
    assert not set(payloads(info, "train")) & set(payloads(info, "validation"))
    again = load_tfds_folder(alone, cache, validation_share=0.25, seed=7)
    assert again.selected["train"].tolist() == rest.selected.tolist()
    assert again.fingerprint == info.fingerprint
    other = load_tfds_folder(alone, cache, validation_share=0.25, seed=8)
    assert other.selected["train"].tolist() != rest.selected.tolist()
    assert other.fingerprint != info.fingerprint


def test_a_record_is_held_out_whatever_the_other_shards_are(alone, cache):
    info = load_tfds_folder(alone, cache, validation_share=0.25, seed=7)
    index = open_tfds_index(info, "validation")
    sizes = [shard.num_examples for shard in index.shards]
    first = index.selected[index.selected < sizes[0]]

    assert np.flatnonzero(hold_out([sizes[0], 5], 0.25, 7))[: len(first)].tolist() == first.tolist()
    # The shards are not all cut at the same places.
    assert hold_out([50, 50], 0.5, 7)[:50].tolist() != hold_out([50, 50], 0.5, 7)[50:].tolist()
    assert abs(hold_out([100_000], 0.2, 7).mean() - 0.2) < 0.01


def test_a_shard_that_is_not_in_a_part_is_left_out_of_its_counts(alone, cache, payloads):
    info = load_tfds_folder(alone, cache, validation_share=0.004, seed=1)
    index = open_tfds_index(info, "validation")
    assert len(index.shards) == 4
    assert 0 < len(info.splits["validation"].shards) < 4
    assert all(shard.num_examples for shard in info.splits["validation"].shards)
    assert len(payloads(info, "validation")) == info.splits["validation"].num_examples


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 2.0, float("nan")])
def test_a_share_is_a_fraction(alone, cache, share):
    with pytest.raises(ConfigError, match="validation_share must be above 0 and below 1"):
        load_tfds_folder(alone, cache, validation_share=share)


def test_a_share_of_nothing_is_refused(alone, cache):
    with pytest.raises(DatasetError, match="leaves a split empty"):
        load_tfds_folder(alone, cache, validation_share=1e-9)


def test_a_share_beside_a_validation_split_is_refused(tmp_path, cache, write_tfds, tfds_examples):
    data = write_tfds(tmp_path / "a", {"train": tfds_examples(0, 9), "val": tfds_examples(9, 12)})
    assert load_tfds_folder(data, cache).splits["validation"].num_examples == 3
    with pytest.raises(ConfigError, match="there is a split 'val'; leave out --validation-share"):
        load_tfds_folder(data, cache, validation_share=0.2)


def test_a_test_split_stays_one_beside_a_share(folder, cache):
    info = load_tfds_folder(folder, cache, validation_share=0.5)
    assert info.splits["test"].num_examples == 20
    assert info.splits["train"].num_examples + info.splits["validation"].num_examples == 40


def test_a_test_split_alone_can_be_evaluated_on(folder, cache):
    path = folder / "dataset_info.json"
    content = json.loads(path.read_text())
    content["splits"] = [split for split in content["splits"] if split["name"] == "test"]
    path.write_text(json.dumps(content))
    info = load_tfds_folder(folder, cache)
    assert open_tfds_index(info, "test").num_examples == 20
    with pytest.raises(DatasetError, match="no split 'train'"):
        open_tfds_index(info, "train")
    with pytest.raises(ConfigError, match="a part of the split 'train', and there is none"):
        load_tfds_folder(folder, cache, validation_share=0.2)
