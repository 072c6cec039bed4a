import contextlib
import dataclasses
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.dataset.records import unframe
from shardstream.train.data.tfds_folder import TfdsInfo, is_tfds_folder, load_tfds_folder, open_tfds_index

CLASSES = ["cat/dog", "<b>&", "새"]
SCAN = "reads the headers"


def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20 + number % 7, 30), (number % 256,) * 3).save(file, "JPEG")
    return file.getvalue()


def image_and_label(shape=(None, None, 3)) -> dict[str, Any]:
    return {"photo": tfds.features.Image(shape=shape), "kind": tfds.features.ClassLabel(names=CLASSES)}


def examples(start: int, stop: int, **others: Any) -> list[dict[str, Any]]:
    return [{"photo": io.BytesIO(jpeg(n)), "kind": n % 3, **others} for n in range(start, stop)]


def write(
    root: Path,
    features: dict[str, Any],
    splits: dict[str, list[dict[str, Any]]],
    supervised_keys: tuple[str, str] | None = None,
    *,
    num_shards: int = 1,
    in_order: bool = False,
) -> Path:
    """Writes a dataset with stock TensorFlow Datasets."""

    class Birds(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("2.0.1")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=supervised_keys,
                disable_shuffling=in_order,
            )

        def _split_generators(self, dl_manager):
            return {name: enumerate(split) for name, split in splits.items()}

        def _generate_examples(self):
            raise NotImplementedError

    tfds.disable_progress_bar()
    builder = Birds(data_dir=str(root))
    config = tfds.download.DownloadConfig(num_shards=num_shards)
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_config=config)
    return Path(str(builder.data_path))


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    features = image_and_label() | {
        "boxes": tfds.features.Sequence(tfds.features.BBoxFeature()),
        "image/filename": tfds.features.Text(),
    }
    boxes = [[tfds.features.BBox(0.0, 0.0, 1.0, 1.0)] * (n % 3) for n in range(60)]
    rows = [
        {**example, "boxes": boxes[n], "image/filename": f"{n}.jpg"}
        for n, example in enumerate(examples(0, 60))
    ]
    return write(
        tmp_path_factory.mktemp("tfds"), features, {"train": rows[:40], "test": rows[40:]}, num_shards=3
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """A dataset with a train split and no other."""
    return write(
        tmp_path_factory.mktemp("alone"), image_and_label(), {"train": examples(0, 200)}, num_shards=4
    )


@pytest.fixture
def folder(shared, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(shared, tmp_path / "data"))


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _log(caplog):
    caplog.set_level("INFO", "shardstream")


def shards(folder: Path, split: str) -> list[Path]:
    return sorted(folder.glob(f"birds-{split}.tfrecord*"))


def payloads(info: TfdsInfo, split: str) -> list[bytes]:
    """The records of a split, read by the rows of its index."""
    index = open_tfds_index(info, split)
    found = []
    row = 0
    for shard in index.shards:
        content = (info.data_dir / shard.filename).read_bytes()
        offsets = [*index.rows["offset"][row : row + shard.num_examples].tolist(), len(content)]
        for start, end in itertools.pairwise(offsets):
            record = content[start:end]
            assert int.from_bytes(record[-4:], "little") == index.rows["checksum"][len(found)]
            found.append(unframe(record))
        row += shard.num_examples
    return found if index.selected is None else [found[row] for row in index.selected]


def test_what_stock_tfds_writes_is_described(shared, cache):
    before = {path: path.stat().st_mtime_ns for path in shared.rglob("*")}
    info = load_tfds_folder(shared, cache)
    assert (info.name, info.version, info.class_names) == ("birds", "2.0.1", tuple(CLASSES))
    assert (info.image_key, info.label_key, info.filename_key) == ("photo", "kind", "image/filename")
    assert {name: split.num_examples for name, split in info.splits.items()} == {
        "train": 40,
        "test": 20,
        "validation": 20,
    }
    assert len(info.splits["train"].shards) == 3
    assert info.split("train").class_counts == (14, 13, 13)
    assert info.image.size is None
    assert {path: path.stat().st_mtime_ns for path in shared.rglob("*")} == before


@pytest.mark.parametrize("split", ["train", "validation"])
def test_rows_are_the_records_that_tfds_reads(shared, cache, split):
    info = load_tfds_folder(shared, cache)
    stored = "test" if split == "validation" else split
    config = tfds.ReadConfig(interleave_cycle_length=1)
    decoders = {"photo": tfds.decode.SkipDecoding()}
    dataset = tfds.builder_from_directory(str(shared)).as_dataset(
        split=stored, read_config=config, decoders=decoders
    )
    expected = [(int(row["kind"]), row["photo"].numpy()) for row in dataset]
    index = open_tfds_index(info, split)
    assert index.labels.tolist() == [label for label, _ in expected]
    found = payloads(info, split)
    assert len(found) == len(expected)
    assert all(image in payload for payload, (_, image) in zip(found, expected, strict=True))


def test_a_scan_is_kept_and_belongs_to_the_files(folder, cache, caplog):
    info = load_tfds_folder(folder, cache)
    assert SCAN not in caplog.text, "Nothing is scanned before a split is used."
    fingerprint = info.fingerprint
    assert SCAN in caplog.text
    caplog.clear()
    again = load_tfds_folder(folder, cache)
    assert again == info
    assert again.fingerprint == fingerprint
    assert isinstance(open_tfds_index(again, "train").rows, np.memmap)
    assert SCAN not in caplog.text
    os.utime(shards(folder, "train")[1], (1, 1))
    assert load_tfds_folder(folder, cache).fingerprint == fingerprint
    assert SCAN in caplog.text


@pytest.mark.parametrize("spoil", ["torn", "foreign", "of other shards", "of other labels"])
def test_a_kept_index_is_checked(folder, cache, caplog, spoil):
    info = load_tfds_folder(folder, cache)
    rows = np.array(open_tfds_index(info, "train").rows)
    (kept,) = (cache / "indexes").iterdir()
    if spoil == "torn":
        kept.write_bytes(kept.read_bytes()[:-7])
    elif spoil == "foreign":
        np.save(kept, np.arange(40))
    else:
        name, change = ("offset", -1) if spoil == "of other shards" else ("label", 7)
        rows[name][5] += change if spoil == "of other labels" else 10**9
        np.save(kept, rows)
    caplog.clear()
    again = open_tfds_index(load_tfds_folder(folder, cache), "train")
    assert SCAN in caplog.text
    assert again.labels.tolist() != [] and again.rows["offset"][5] < 10**6 and again.labels.max() == 2


def test_a_kept_index_runs_no_code(folder, cache, tmp_path):
    open_tfds_index(load_tfds_folder(folder, cache), "train")
    (kept,) = (cache / "indexes").iterdir()

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    np.save(kept, np.array([Bomb()], object), allow_pickle=True)
    assert open_tfds_index(load_tfds_folder(folder, cache), "train").num_examples == 40
    assert not (tmp_path / "exploded").exists()


def test_an_index_that_cannot_be_kept_is_made_each_time(folder, tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    assert open_tfds_index(load_tfds_folder(folder, tmp_path / "file"), "train").num_examples == 40
    assert "cannot be written" in caplog.text


def test_the_fingerprint_covers_every_trained_record(folder, cache):
    before = load_tfds_folder(folder, cache).fingerprint
    path = shards(folder, "train")[1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # A checksum of a record.
    path.write_bytes(content)
    assert load_tfds_folder(folder, cache).fingerprint != before


def test_an_unlabelled_split_refuses_itself_alone(tmp_path, cache):
    splits = {
        "train": examples(0, 20),
        "validation": examples(20, 30),
        "test": [example | {"kind": -1} for example in examples(30, 40)],
    }
    info = load_tfds_folder(write(tmp_path / "tfds", image_and_label(), splits), cache)
    assert info.fingerprint
    assert open_tfds_index(info, "train").num_examples == 20
    assert info.split("test").class_counts == (0, 0, 0)
    with pytest.raises(DatasetError, match=r"birds-test\S*: record 0 has no label \(-1\)"):
        open_tfds_index(info, "test")


def test_an_unlabelled_record_of_the_train_split_is_named(tmp_path, cache):
    train = examples(0, 20)
    train[7]["kind"] = -1
    splits = {"train": train, "validation": examples(20, 30)}
    data = write(tmp_path / "tfds", image_and_label(), splits, in_order=True, num_shards=2)
    info = load_tfds_folder(data, cache)
    assert [shard.num_examples for shard in info.splits["train"].shards] == [10, 10]
    with pytest.raises(
        DatasetError, match=r"birds-train.tfrecord-00000-of-00002: record 7 has no label \(-1\)"
    ):
        open_tfds_index(info, "train")


@pytest.mark.parametrize(("shape", "size"), [((28, 28, 1), 28), ((28, 30, 3), None), ((None, None, 1), None)])
def test_a_static_square_shape_is_the_stored_size(tmp_path, cache, shape, size):
    pixels = np.zeros(tuple(side or 9 for side in shape), np.uint8)
    rows = [{"photo": pixels, "kind": n % 3} for n in range(6)]
    data = write(tmp_path / "tfds", image_and_label(shape), {"train": rows, "validation": rows})
    assert load_tfds_folder(data, cache).image.size == size


def test_supervised_keys_choose_among_several(tmp_path, cache):
    features = image_and_label() | {
        "mask": tfds.features.Image(shape=(None, None, 1)),
        "species": tfds.features.ClassLabel(num_classes=2),
    }
    rows = examples(0, 6, mask=np.zeros((4, 4, 1), np.uint8), species=1)
    splits = {"train": rows, "validation": rows}
    info = load_tfds_folder(write(tmp_path / "a", features, splits, ("photo", "species")), cache)
    assert (info.label_key, info.class_names) == ("species", ("0", "1"))
    assert open_tfds_index(info, "train").labels.tolist() == [1] * 6
    for example in rows:
        example["photo"].seek(0)
    data = write(tmp_path / "b", features, splits)
    with pytest.raises(
        DatasetError, match="supervised keys that name them, found 'photo', 'mask', 'kind', 'species'"
    ):
        load_tfds_folder(data, cache)


BOXES = {"bbox": tfds.features.BBoxFeature(), "label": tfds.features.ClassLabel(num_classes=2)}


@pytest.mark.parametrize(
    ("feature", "keys", "sentence"),
    [
        (tfds.features.Sequence(BOXES), None, "'target' is for detection"),
        (
            tfds.features.Sequence(tfds.features.ClassLabel(num_classes=2)),
            None,
            "'target' is for multi-label",
        ),
        (tfds.features.Scalar(dtype=np.float32), None, "'target' is for regression"),
        (
            tfds.features.Scalar(dtype=np.float32),
            ("photo", "target"),
            "'target' is Scalar, expected ClassLabel",
        ),
        (tfds.features.Text(), ("target", "photo"), "'target' is Text, expected Image"),
        (
            tfds.features.LabeledImage(labels=2, shape=(4, 4, 1)),
            ("photo", "target"),
            "'target' is LabeledImage",
        ),
    ],
)
def test_what_is_no_classification_is_refused_by_name(tmp_path, cache, feature, keys, sentence):
    features = {"photo": tfds.features.Image(), "target": feature}
    (tmp_path / "birds").mkdir()
    info = {"name": "birds", "version": "1.0.0", "splits": [{"name": "validation", "shardLengths": ["1"]}]}
    if keys:
        info["supervisedKeys"] = dict(zip(("input", "output"), keys, strict=True))
    (tmp_path / "birds/dataset_info.json").write_text(json.dumps(info))
    tfds.features.FeaturesDict(features).save_config(tmp_path / "birds")
    with pytest.raises(DatasetError, match=re.escape(sentence)):
        load_tfds_folder(tmp_path / "birds", cache)


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


def test_reading_a_folder_loads_no_tensorflow(shared, tmp_path):
    program = f"""
import sys
from pathlib import Path
from shardstream.train.data.tfds_folder import load_tfds_folder, open_tfds_index
info = load_tfds_folder(Path({str(shared)!r}), Path({str(tmp_path)!r}))
print(open_tfds_index(info, "train").num_examples, len(info.fingerprint), "tensorflow" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout == "40 64 False\n", result.stderr


def test_a_held_out_share_and_the_rest_are_the_train_split(alone, cache):
    info = load_tfds_folder(alone, cache, validation_share=0.25, seed=7)
    held, rest = (open_tfds_index(info, name) for name in ("validation", "train"))
    assert sorted([*held.selected, *rest.selected]) == list(range(200))
    assert 30 < held.num_examples < 70
    for name, index in (("validation", held), ("train", rest)):
        assert index.selected.dtype == np.int64
        assert (np.diff(index.selected) > 0).all()
        split = info.split(name)
        assert split.num_examples == index.num_examples == sum(split.class_counts)
        assert np.bincount(index.labels).tolist() == list(split.class_counts)
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
    from shardstream.train.data.held_out import hold_out

    assert np.flatnonzero(hold_out([sizes[0], 5], 0.25, 7))[: len(first)].tolist() == first.tolist()
    # The shards are not all cut at the same places.
    assert hold_out([50, 50], 0.5, 7)[:50].tolist() != hold_out([50, 50], 0.5, 7)[50:].tolist()
    assert abs(hold_out([100_000], 0.2, 7).mean() - 0.2) < 0.01


def test_a_shard_that_is_not_in_a_part_is_left_out_of_its_counts(alone, cache):
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


def test_a_share_beside_a_validation_split_is_refused(tmp_path, cache):
    data = write(tmp_path / "a", image_and_label(), {"train": examples(0, 9), "val": examples(9, 12)})
    assert load_tfds_folder(data, cache).splits["validation"].num_examples == 3
    with pytest.raises(ConfigError, match="there is a split 'val'; leave out --validation-share"):
        load_tfds_folder(data, cache, validation_share=0.2)


def test_a_test_split_stays_one_beside_a_share(folder, cache):
    info = load_tfds_folder(folder, cache, validation_share=0.5)
    assert info.splits["test"].num_examples == 20
    assert info.splits["train"].num_examples + info.splits["validation"].num_examples == 40


def test_a_test_split_alone_can_be_evaluated_on(folder, cache):
    edit(folder / "dataset_info.json", lambda content: content["splits"].pop(0 if is_train(content) else 1))
    info = load_tfds_folder(folder, cache)
    assert open_tfds_index(info, "test").num_examples == 20
    with pytest.raises(DatasetError, match="no split 'train'"):
        open_tfds_index(info, "train")
    with pytest.raises(ConfigError, match="a part of the split 'train', and there is none"):
        load_tfds_folder(folder, cache, validation_share=0.2)


def test_folders_of_ours_are_not_tfds_folders(folder):
    assert is_tfds_folder(folder)
    assert not is_tfds_folder(folder.parent)
    (folder / "metadata.json").write_text('{"note": "as builders of TFDS write it"}')
    assert is_tfds_folder(folder)
    for content in ('{"format_version": 4}', "{"):
        (folder / "metadata.json").write_text(content)
        assert not is_tfds_folder(folder)


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def is_train(content) -> bool:
    return content["splits"][0]["name"] == "train"


def train_split(content) -> dict[str, Any]:
    return content["splits"][0 if is_train(content) else 1]


def in_info(**values) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "dataset_info.json", lambda content: content.update(values))


def in_train(**values) -> Callable[[Path], None]:
    return lambda folder: edit(
        folder / "dataset_info.json", lambda content: train_split(content).update(values)
    )


def in_features(**values) -> Callable[[Path], None]:
    return lambda folder: edit(
        folder / "features.json", lambda content: content["featuresDict"]["features"].update(values)
    )


def text(name: str, content: str | bytes) -> Callable[[Path], None]:
    return lambda folder: (
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content) and None
    )


def fifo(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


LABEL = "tensorflow_datasets.core.features.class_label_feature.ClassLabel"
FOREIGN = "evil_module.Feature"
LEGACY = {"type": LABEL, "content": {"names_file": "/dev/zero"}, "proto_cls": ""}
IN_JSON = {"pythonClassName": LABEL, "jsonFeature": {"json": json.dumps({"feature": {"type": FOREIGN}})}}
SHARD = "birds-train.tfrecord-00001-of-00003"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (in_info(fileFormat="array_record"), "records in 'array_record', expected 'tfrecord'"),
        (in_info(fileFormat="riegeli"), "records in 'riegeli', expected 'tfrecord'"),
        (in_info(fileFormat="\x1b[31m"), "cannot read dataset_info.json and features.json"),
        (in_info(version="one"), "tensorflow_datasets cannot read dataset_info.json"),
        (in_info(unknown=1), "tensorflow_datasets cannot read dataset_info.json"),
        (in_info(splits=7), "tensorflow_datasets cannot read dataset_info.json"),
        (in_info(splits=[{}]), "tensorflow_datasets cannot read dataset_info.json"),
        (
            in_info(name="../x"),
            "'../x-train.tfrecord-00000-of-00003' is not the name of a file in the folder",
        ),
        (in_info(supervisedKeys={"tuple": {"items": [{}]}}), "dataset_info.json"),
        (in_info(supervisedKeys={"input": "nothing", "output": "kind"}), "'nothing' is no feature"),
        (in_train(filepathTemplate="../{SPLIT}"), "'../train' is not the name of a file in the folder"),
        (in_train(filepathTemplate="/etc/{SPLIT}"), "'/etc/train' is not the name of a file in the folder"),
        (in_train(filepathTemplate="same"), "'same' is the name of two shards"),
        (in_train(filepathTemplate="{SPLIT:>9999999999}"), "file names of 'train' by"),
        (in_train(filepathTemplate="{SPLIT.__class__}"), "file names of 'train' by"),
        (in_train(filepathTemplate="{NOTHING}"), "file names of 'train' by"),
        (in_train(filepathTemplate="birds\n{SHARD_INDEX}"), "is not the name of a file in the folder"),
        (in_train(shardLengths=["14", "-1", "13"]), "not a file of -1 records"),
        (in_train(shardLengths=["14", "999999999999", "13"]), "not a file of 999,999,999,999 records"),
        (in_train(shardLengths=["14", "0", "13"]), "not a file of 0 records"),
        (in_train(shardLengths=["1", "1"]), "birds-train.tfrecord-00000-of-00002: no such shard"),
        (in_train(shardLengths=["x"]), "tensorflow_datasets cannot read dataset_info.json"),
        (in_features(evil={"pythonClassName": FOREIGN}), f"a feature of the class '{FOREIGN}'"),
        (in_features(evil={"python_class_name": FOREIGN}), f"a feature of the class '{FOREIGN}'"),
        (in_features(evil={"type": FOREIGN, "content": {}}), f"a feature of the class '{FOREIGN}'"),
        (in_features(evil=IN_JSON), f"a feature of the class '{FOREIGN}'"),
        (in_features(evil=LEGACY), "class names in the file of another folder"),
        (
            in_features(kind={"pythonClassName": LABEL, "classLabel": {"numClasses": "99999999999"}}),
            "99999999999 classes",
        ),
        (
            in_features(kind={"pythonClassName": LABEL, "classLabel": {"numClasses": "4"}}),
            "kind.labels.txt: ",
        ),
        (in_features(photo=7), "tensorflow_datasets cannot read"),
        (text("kind.labels.txt", "a\na\nb"), "kind.labels.txt: "),
        (text("kind.labels.txt", b"\xff\xfe\xfa"), "kind.labels.txt: "),
        (text("features.json", "[" * 100_000), "features.json: not JSON"),
        (text("features.json", "[]"), "features.json: expected a JSON object"),
        (text("features.json", "{}"), "tensorflow_datasets cannot read"),
        (text("dataset_info.json", b"\xff"), "dataset_info.json: not JSON"),
        (text("dataset_info.json", " " * (1 << 22) + "{}"), "4,194,306 bytes, expected at most 4,194,304"),
        (fifo("features.json"), "features.json: not a regular file"),
        (fifo("kind.labels.txt"), "kind.labels.txt: not a regular file"),
        (fifo(SHARD), f"{SHARD}: 0 bytes, not a file of"),
        (lambda folder: (folder / SHARD).unlink(), f"{SHARD}: no such shard"),
    ],
)
def test_a_hostile_description_ends_in_one_sentence(folder, cache, tmp_path, monkeypatch, change, sentence):
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    change(folder)
    with pytest.raises(DatasetError) as raised:
        load_tfds_folder(folder, cache)
    message = str(raised.value)
    assert sentence in message
    assert str(folder) in message
    assert message.isprintable() or "\n" not in message.replace(str(folder), "")
    assert not (tmp_path / "executed").exists()


def flip(offset: int) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        content[offset] ^= 1

    return change


def relabel(label: bytes) -> Callable[[bytearray], None]:
    """The label of the first record is another number of one byte. Its checksum is not looked at by a scan."""

    def change(content: bytearray) -> None:
        place = re.search(rb"\x0a\x04kind\x12.\x1a.\x0a\x01", content, re.DOTALL)
        assert place
        content[place.end() : place.end() + 1] = label

    return change


def rename(content: bytearray) -> None:
    content[:] = content.replace(b"\x04kind", b"\x04mind", 1)


def cut(content: bytearray) -> None:
    del content[-20:]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (flip(0), "record 0 at byte 0: a record has a wrong checksum of its length"),
        (cut, "is cut short"),
        (relabel(b"\x05"), "record 0 has the label 5, but there are 3 classes"),
        (rename, "record 0 is not a tf.train.Example with one number as 'kind'"),
        (flip(12), "record 0 is not a tf.train.Example with one number as 'kind'"),
    ],
)
def test_corrupt_shards_are_named(folder, cache, change, sentence):
    path = folder / SHARD
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    info = load_tfds_folder(folder, cache)
    with pytest.raises(DatasetError, match=re.escape(str(path))) as raised:
        open_tfds_index(info, "train")
    assert sentence in str(raised.value)
    assert open_tfds_index(info, "test").num_examples == 20, "The other split is not concerned."


def test_counts_are_compared_with_the_shards(folder, cache):
    edit(
        folder / "dataset_info.json",
        lambda content: train_split(content).update(shardLengths=["13", "13", "13"]),
    )
    with pytest.raises(DatasetError, match=r"13 records end at byte [\d,]+ of [\d,]+"):
        open_tfds_index(load_tfds_folder(folder, cache), "train")


def test_no_bytes_of_a_record_do_more_than_refuse_it(folder, cache):
    path = folder / SHARD
    original = path.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    info = load_tfds_folder(folder, cache)
    for number in range(300):
        content = bytearray(original)
        for place in generator.integers(12, 200, 3):
            content[place] = generator.integers(256)
        path.write_bytes(content)
        fresh = dataclasses.replace(info, _rows={}, cache_dir=cache / str(number))
        try:
            assert set(open_tfds_index(fresh, "train").labels.tolist()) <= {0, 1, 2}
        except DatasetError:
            refused += 1
    assert refused > 50


def test_a_folder_made_by_store_as_tfds_dataset(tmp_path, cache):
    pytest.importorskip("importlib_resources")
    data = {
        name: [{"photo": np.full((9, 9, 3), n, np.uint8), "kind": n % 3} for n in range(9)]
        for name in ("train", "validation")
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="stored",
        version="1.0.0",
        features=tfds.features.FeaturesDict(image_and_label()),
        split_datasets={name: list(enumerate(rows)) for name, rows in data.items()},
        data_dir=str(tmp_path / "tfds"),
    )
    info = load_tfds_folder(tmp_path / "tfds/stored/1.0.0", cache)
    assert info.split("train").class_counts == (3, 3, 3)
