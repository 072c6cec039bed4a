"""Stock TensorFlow Datasets reads what ingest writes."""

import io

import numpy as np
import pytest
from PIL import Image

from shardstream.ingest.__main__ import main
from shardstream.ingest.dataset.metadata import DatasetInfo

CLASSES = ("음식", "interior", "exterior")  # Neither sorted nor English alone.


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir()
        for number in range(25):
            pixels = rng.integers(0, 256, (24, 36, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def build(photos, data, *options):
    classes = ("--class-names", *CLASSES)
    assert (
        main(["build", str(photos), str(data), *classes, "--workers", "1", "--shard-size", "30KiB", *options])
        == 0
    )


@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
def test_tfds_reads_every_record(photos, tmp_path, encoding):
    import tensorflow_datasets as tfds

    data = tmp_path / "my photos"
    build(photos, data, "--image-size", "16", "--encoding", encoding)
    builder = tfds.builder_from_directory(data)
    assert builder.info.features["label"].names == list(CLASSES)
    info = DatasetInfo.load(data)
    for name, split in info.splits.items():
        assert builder.info.splits[name].num_shards == len(split.shards)
        read = list(builder.as_dataset(split=name, as_supervised=True).as_numpy_iterator())
        assert len(read) == split.num_examples
        assert {image.shape for image, _ in read} == {(16, 16, 3)}
        assert tuple(np.bincount([label for _, label in read], minlength=3)) == split.class_counts


def test_tfds_sees_the_pixels_that_were_stored(photos, tmp_path):
    import tensorflow_datasets as tfds

    build(photos, tmp_path / "d", "--image-size", "original", "--encoding", "png")
    read = tfds.builder_from_directory(tmp_path / "d").as_dataset(split="train").as_numpy_iterator()
    for example in read:
        path = photos / example["image/filename"].decode()
        assert np.array_equal(example["image"], np.asarray(Image.open(io.BytesIO(path.read_bytes()))))
        assert CLASSES[example["label"]] == path.parent.name


def test_tfds_load_finds_it_by_name_and_version(photos, tmp_path):
    import tensorflow_datasets as tfds

    (tmp_path / "my_photos").mkdir()
    build(photos, tmp_path / "my_photos/1.2.0", "--image-size", "16")
    dataset, info = tfds.load("my_photos", data_dir=tmp_path, split="train[:50%]", with_info=True)
    assert str(info.version) == "1.2.0"
    assert len(list(dataset)) == round(info.splits["train"].num_examples / 2)
