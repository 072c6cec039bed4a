import dataclasses
import json
import re
from pathlib import Path

import pytest

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.metadata import DatasetInfo, ShardInfo, SplitInfo, SplitRule
from shardstream.ingest.images.settings import ImageSettings, ProcessingSettings


def make_judging(**changes) -> ProcessingSettings:
    image = {"size": None, "resize": "crop", "encoding": "jpeg", "quality": 90} | changes
    return ProcessingSettings(image=ImageSettings(**image), check="header", max_pixels=1000)


def make_info(data_dir: Path, **changes) -> DatasetInfo:
    shard = ShardInfo(
        filename="d-train.tfrecord-00000-of-00001",
        num_examples=17,
        num_bytes=900,
        sha256="ab" * 32,
    )
    return DatasetInfo(
        **{
            "data_dir": data_dir,
            "name": "d",
            "class_names": ("food", "interior"),
            "display_names": ("음식", "실내"),
            "version": "1.0.0",
            "judging": make_judging(),
            "split_rule": SplitRule(
                seed=123,
                fractions={"validation": 0.2, "test": 0.0},
                keep_together="duplicates",
                stratify=False,
            ),
            "shard_bytes": 1 << 20,
            "splits": {"train": SplitInfo(name="train", shards=(shard,), class_counts=(10, 7))},
            "verdicts": {"ok": 17, "rejected": 1},
            "manifest_sha256": "cd" * 32,
        }
        | changes
    )


def test_metadata_come_back_as_they_were(tmp_path):
    info = make_info(tmp_path)
    info.save(tmp_path)
    assert DatasetInfo.load(tmp_path) == info
    assert info.split("train").num_examples == 17
    assert info.split("train").num_bytes == 900


def test_the_fingerprint_is_of_what_a_training_sees(tmp_path):
    info = make_info(tmp_path)
    assert make_info(tmp_path / "moved", display_names=("a", "b")).fingerprint == info.fingerprint
    for changes in (
        {"class_names": ("interior", "food")},
        {"judging": make_judging(size=64)},
        {"splits": {}},
    ):
        assert make_info(tmp_path, **changes).fingerprint != info.fingerprint


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        ({"format_version": 2}, "format version 2, this shardstream reads 3 and newer"),
        ({"shard_bytes": "123"}, 'shard_bytes: expected int, found "123"'),
        ({"shard_bytes": True}, "shard_bytes: expected int, found true"),
        ({"class_names": ["food", 3]}, "class_names[1]: expected str, found 3"),
        ({"judging": {"image": {"size": 3.5}}}, "judging.image.size: expected int or NoneType, found 3.5"),
        (
            {"judging": {"image": {"size": 3, "resize": "squash"}}},
            "judging.image.resize: expected stretch or crop or pad, found 'squash'",
        ),
        (
            {"splits": {"train": {"class_counts": [], "shards": [{}]}}},
            "splits.train.shards[0].filename: missing",
        ),
        ({"class_names": ["interior", "food"]}, "does not match its own fingerprint: it was edited"),
    ],
)
def test_edited_metadata_are_refused_with_the_place(tmp_path, edit, sentence):
    make_info(tmp_path).save(tmp_path)
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    with pytest.raises(
        DatasetError, match=re.escape(f"{path}: {sentence}") + ".*shardstream-ingest (build|repair)"
    ):
        DatasetInfo.load(tmp_path)


def test_a_missing_key_is_named(tmp_path):
    make_info(tmp_path).save(tmp_path)
    path = tmp_path / "metadata.json"
    content = json.loads(path.read_text())
    del content["verdicts"]
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="verdicts: missing"):
        DatasetInfo.load(tmp_path)


def test_a_newer_format_asks_for_a_newer_program(tmp_path):
    make_info(tmp_path).save(tmp_path)
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 5}))
    sentence = f"{path}: format version 5, this shardstream reads up to 4; install a newer shardstream"
    with pytest.raises(DatasetError, match=f"^{re.escape(sentence)}$"):
        DatasetInfo.load(tmp_path)


def test_the_format_before_is_read_without_its_blocks(tmp_path):
    info = make_info(tmp_path)
    info.save(tmp_path)
    path = tmp_path / "metadata.json"
    content = json.loads(path.read_text())
    content["format_version"] = 3
    content["splits"]["train"]["shards"][0] |= {"block_offsets": [0, 800], "block_checksums": [7, 8]}
    path.write_text(json.dumps(content))
    assert DatasetInfo.load(tmp_path) == dataclasses.replace(info, format_version=3)


def test_what_is_no_dataset_is_refused_with_what_to_do(tmp_path):
    def assert_refused(folder, sentence):
        with pytest.raises(DatasetError, match=re.escape(sentence)):
            DatasetInfo.load(folder)

    assert_refused(tmp_path / "no", "no: no such folder; make it with `shardstream-ingest build IMAGES")
    assert_refused(tmp_path, "no metadata.json in it, so it is not a complete dataset")
    (tmp_path / "metadata.json").write_text("{")
    assert_refused(tmp_path, "metadata.json: not JSON")
    assert_refused(tmp_path / "metadata.json", "a file, expected a dataset folder")


def test_images_and_runs_given_as_a_dataset_are_said(tmp_path):
    def assert_refused(folder, sentence):
        with pytest.raises(DatasetError, match=re.escape(f"{folder}: {sentence}")):
            DatasetInfo.load(folder)

    photos, split_photos, run = (tmp_path / name for name in ("photos", "split", "run"))
    for path in (
        photos / "cat/1.JPG",
        split_photos / "train/cat/1.png",
        run / "model.json",
        run / "curves.png",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    assert_refused(photos, "holds images, expected a dataset folder; make one with `shardstream-ingest build")
    assert_refused(split_photos, "holds images, expected a dataset folder")
    assert_refused(run, "a run folder, expected a dataset folder made by `shardstream-ingest build`")


def test_a_split_that_is_not_there(tmp_path):
    with pytest.raises(DatasetError, match=re.escape(f"{tmp_path}: no split 'test'; there is train")):
        make_info(tmp_path).split("test")
