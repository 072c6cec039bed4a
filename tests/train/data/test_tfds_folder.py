import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shardstream.train.data.input_pipeline import StreamedSplit

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.records import frame
from shardstream.train.__main__ import main as train
from shardstream.train.data.dataset import load_dataset
from shardstream.train.data.tfds_folder import TfdsInfo

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
CLASSES = ["cat/dog", "<b>&", "새"]


def picture(number: int) -> bytes:
    """A flat picture of its own size and format, whose colour is its number."""
    mode = ("RGB", "L", "RGBA")[number % 3] if FORMATS[number % 5] == "PNG" else "RGB"
    colour = {"L": number * 4, "RGB": (number * 4,) * 3, "RGBA": (number * 4,) * 3 + (255,)}[mode]
    file = io.BytesIO()
    Image.new(mode, (20 + number, 30), colour).save(file, FORMATS[number % 5])
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What stock TensorFlow Datasets writes: other names of the features, and no split called validation."""
    import tensorflow_datasets as tfds

    class Birds(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("2.0.1")

        def _info(self):
            features = {
                "photo": tfds.features.Image(shape=(None, None, 3)),
                "kind": tfds.features.ClassLabel(names=CLASSES),
                "boxes": tfds.features.Sequence(tfds.features.BBoxFeature()),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {
                "train": self._generate_examples(range(40)),
                "test": self._generate_examples(range(40, 60)),
            }

        def _generate_examples(self, numbers):
            for number in numbers:
                boxes = [tfds.features.BBox(0.0, 0.0, 1.0, 1.0)] * (number % 3)
                yield (
                    str(number),
                    {"photo": io.BytesIO(picture(number)), "kind": CLASSES[number % 3], "boxes": boxes},
                )

    root = tmp_path_factory.mktemp("tfds")
    builder = Birds(data_dir=root)
    builder.download_and_prepare()
    return Path(str(builder.data_dir))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/shardstream/indexes"


def test_what_stock_tfds_writes_is_described(folder, cache):
    before = sorted(folder.rglob("*"))
    info = load_dataset(folder)
    assert isinstance(info, TfdsInfo)
    assert (info.name, info.version, info.class_names) == ("birds", "2.0.1", tuple(CLASSES))
    assert {name: split.num_examples for name, split in info.splits.items()} == {
        "train": 40,
        "test": 20,
        "validation": 20,
    }
    assert info.split("train").class_counts == (14, 13, 13)
    assert sorted(folder.rglob("*")) == before, "Nothing is written into the folder of others."
    assert len(list(cache.iterdir())) == 1


def test_every_picture_comes_once_with_its_label(folder):
    info = load_dataset(folder)
    for name, numbers in (("train", range(40)), ("validation", range(40, 60))):
        stream = StreamedSplit(info, name, image_size=16)
        found = {}
        for images, labels in stream.ordered_batches(batch_size=8):
            for image, label in zip(images, labels, strict=True):
                found[round(float(image.mean()) / 4)] = int(label)
        assert found == {number: number % 3 for number in numbers}


def test_the_index_is_kept_and_belongs_to_the_files(folder, cache, caplog):
    caplog.set_level("INFO", "shardstream.train.data.shard_index")
    info = load_dataset(folder)
    assert "reads all records once" in caplog.text
    caplog.clear()
    assert load_dataset(folder) == info
    assert "reads all records" not in caplog.text
    (kept,) = cache.iterdir()
    kept.write_bytes(b"half of it")
    assert load_dataset(folder) == info
    path = folder / info.split("train").shards[0].filename
    os.utime(path, (1, 1))
    caplog.clear()
    assert load_dataset(folder).fingerprint == info.fingerprint
    assert "reads all records once" in caplog.text


def test_the_index_is_kept_beside_the_cached_pictures(folder, cache, tmp_path):
    argv = [
        str(folder),
        "--run",
        str(tmp_path / "run"),
        "--cache-dir",
        str(tmp_path / "fast disk"),
        "--batch-size",
        "41",
    ]
    assert train(argv) == 2  # More than there are: the dataset was looked at, and that is all.
    assert [path.name for path in (tmp_path / "fast disk").iterdir()] == ["indexes"]
    assert not cache.exists()


def test_an_index_that_cannot_be_kept_is_made_each_time(folder, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert load_dataset(folder).split("train").num_examples == 40
    assert "cannot be written" in caplog.text


def test_training_and_prediction(folder, tmp_path, capsys):
    from shardstream.predict.__main__ import main as predict

    run = tmp_path / "run"
    options = ("--epochs", "1", "--batch-size", "8", "--image-size", "16", "--cache", "none")
    assert train([str(folder), "--run", str(run), *options]) == 0
    assert predict([str(run), str(folder), "--all", "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    table = (Path(report["report"]).parent / "predictions.csv").read_text("utf-8")
    assert table.count("birds-test.tfrecord-00000-of-00001") >= 20


def copy(folder: Path, target: Path) -> Path:
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def fewer(content):
    content["splits"][0]["shardLengths"] = ["39"]


def parquet(content):
    content["fileFormat"] = "parquet"


def two_labels(content):
    features = content["featuresDict"]["features"]
    features["other"] = features["kind"]


def outside(content):
    content["splits"][0]["filepathTemplate"] = "../{SPLIT}"


@pytest.mark.parametrize(
    ("filename", "change", "sentence"),
    [
        ("dataset_info.json", fewer, "split 'train' has 40 records, dataset_info.json says 39"),
        ("dataset_info.json", parquet, "records in 'parquet', expected 'tfrecord'"),
        ("dataset_info.json", outside, "'../train' is not in the folder of the dataset"),
        (
            "features.json",
            two_labels,
            "expected one feature of the kind ClassLabel, there is 'kind', 'other'",
        ),
    ],
)
def test_what_cannot_be_trained_from_is_refused(folder, tmp_path, filename, change, sentence, capsys):
    data = copy(folder, tmp_path / "data")
    edit(data / filename, change)
    assert train([str(data), "--run", str(tmp_path / "run")]) == 2
    assert sentence in capsys.readouterr().err


def test_damage_and_missing_labels_are_named(folder, tmp_path):
    data = copy(folder, tmp_path / "data")
    shard = next(data.glob("birds-train*"))
    content = bytearray(shard.read_bytes())
    content[-30] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DatasetError, match=re.escape(f"{shard}: record 39 at byte")):
        load_dataset(data)
    shard.write_bytes(frame(b"\x0a\x00"))
    with pytest.raises(DatasetError, match="record 0 has the label None, there are 3 classes"):
        load_dataset(data)
    shard.unlink()
    with pytest.raises(DatasetError, match="no such shard; make or download"):
        load_dataset(data)


def test_our_own_folders_are_read_as_ours(make_dataset):
    info = make_dataset()
    assert not isinstance(load_dataset(info.data_dir), TfdsInfo)
    assert np.array_equal(load_dataset(info.data_dir).fingerprint, info.fingerprint)
