"""What the folders of a source mean, and what is said where they mean something else."""

import re

import pytest

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.dataset.layout import Layout
from shardstream.ingest.dataset.split_hash import SPLIT_NAMES
from shardstream.ingest.pipeline.scan import scan_folder

SPLITS = Layout(splits_from_folders=True)


def make(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return root


def classes(listing):
    return {file.path: listing.class_names[file.label] for file in listing}


def splits(listing):
    given = listing.given_splits.tolist()
    return {file.path: SPLIT_NAMES[split] for file, split in zip(listing, given, strict=True)}


@pytest.fixture
def split_root(tmp_path):
    return make(
        tmp_path, "training_set/cat/1.jpg", "training_set/dog/2.jpg", "valid/cat/3.jpg", "test/dog/4.jpg"
    )


def test_splits_are_as_their_folders(split_root):
    listing = scan_folder(split_root, layout=SPLITS)
    assert listing.class_names == ("cat", "dog")
    assert splits(listing) == {
        "test/dog/4.jpg": "test",
        "training_set/cat/1.jpg": "train",
        "training_set/dog/2.jpg": "train",
        "valid/cat/3.jpg": "validation",
    }
    assert classes(listing)["valid/cat/3.jpg"] == "cat"


def test_split_folders_never_become_classes_unless_named_as_such(split_root):
    with pytest.raises(
        DatasetError, match=r"training_set, valid and|training_set.* are splits, not classes; with --splits"
    ):
        scan_folder(split_root)
    listing = scan_folder(split_root, ["test", "training_set", "valid"])
    assert listing.class_names == ("test", "training_set", "valid")


@pytest.mark.parametrize(
    ("paths", "layout", "sentence"),
    [
        # As an archive of each split unpacks, with images without classes beside them.
        (
            ("s_train/s_train/cat/1", "s_test/s_test/cat/2", "s_test/s_test/dog/3", "s_pred/s_pred/4"),
            Layout(),
            "s_test, s_train are splits, not classes; with --splits-from-folders --class-depth 2 each",
        ),
        (
            ("s_train/s_train/cat/1", "s_test/s_test/cat/2"),
            SPLITS,
            "are s_test, none of the classes of 'train' (s_train); if the classes lie deeper give --class-depth 2",
        ),
        (
            ("train/cat/images/1", "train/dog/images/2", "val/images/3"),
            SPLITS,
            "the folders in the split 'validation' are images, none of the classes of 'train' (cat, dog)",
        ),
        (("cat/train/1", "cat/val/2", "dog/train/3"), Layout(class_depth=2), "are splits, not classes"),
        (("a/b/train/cat/1", "a/b/test/cat/2"), SPLITS, "a/b?"),
        (("a/cat/1", "a/dog/2"), SPLITS, "no folder is called train, validation or test; there is a"),
    ],
)
def test_splits_at_another_level_are_named(tmp_path, paths, layout, sentence):
    with pytest.raises(DatasetError, match=re.escape(sentence)):
        scan_folder(make(tmp_path, *paths), layout=layout)


def test_splits_in_folders_of_their_own_name_are_read_as_the_sentence_says(tmp_path):
    make(tmp_path, "train/train/cat/1", "train/train/dog/2", "test/test/cat/3")
    listing = scan_folder(tmp_path, layout=Layout(splits_from_folders=True, class_depth=2))
    assert classes(listing) == {
        "test/test/cat/3": "cat",
        "train/train/cat/1": "cat",
        "train/train/dog/2": "dog",
    }


@pytest.mark.parametrize(
    ("tables", "likely"),
    [
        (("a_submission.csv", "train.csv"), "train.csv"),
        (("labels.csv", "info.tsv", "test.csv"), "labels.csv"),
        (("classes.csv", "a_test.csv"), "classes.csv"),
    ],
)
def test_the_table_of_labels_among_several_is_named(tmp_path, tables, likely):
    make(tmp_path, "train/1.jpg", "test/2.jpg", *tables)
    with pytest.raises(DatasetError, match=re.escape(f"such as --labels {tmp_path / likely}")):
        scan_folder(tmp_path)


def test_a_class_called_train_is_one(tmp_path):
    make(tmp_path, "train/1.jpg", "bus/2.jpg")
    assert scan_folder(tmp_path).class_names == ("bus", "train")


@pytest.mark.parametrize(
    ("paths", "sentence"),
    [
        (
            ["sketches/cat/5.jpg"],
            "sketches beside test, training_set, valid: no split that --splits-from-folders knows",
        ),
        (["dev/cat/5.jpg"], "valid and dev both mean the split 'validation'"),
    ],
)
def test_folders_beside_splits(split_root, paths, sentence):
    make(split_root, *paths)
    with pytest.raises(DatasetError, match=r"both mean the split 'validation'|" + re.escape(sentence)):
        scan_folder(split_root, layout=SPLITS)


def test_a_folder_of_annotations_beside_splits_is_no_split_and_no_obstacle(split_root):
    make(split_root, "annotations/cat/1.xml")
    assert len(scan_folder(split_root, layout=SPLITS)) == 4


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (1, {"animals/big/cat/1.jpg": "animals", "animals/dog/2.jpg": "animals", "cars/bus/3.jpg": "cars"}),
        (2, {"animals/big/cat/1.jpg": "big", "animals/dog/2.jpg": "dog", "cars/bus/3.jpg": "bus"}),
        (None, {"animals/big/cat/1.jpg": "cat", "animals/dog/2.jpg": "dog", "cars/bus/3.jpg": "bus"}),
    ],
)
def test_the_level_that_is_the_class(tmp_path, depth, expected):
    make(tmp_path, *expected)
    assert classes(scan_folder(tmp_path, layout=Layout(class_depth=depth))) == expected


def test_one_name_at_two_depths_is_refused_for_deepest_alone(tmp_path):
    make(tmp_path, "2023/cat/1.jpg", "2024/cat/2.jpg", "2024/dog/3.jpg")
    assert scan_folder(tmp_path, layout=Layout(class_depth=2)).class_names == ("cat", "dog")
    with pytest.raises(DatasetError, match="two folders are called 'cat', in 2023 and in 2024"):
        scan_folder(tmp_path, layout=Layout(class_depth=None))


def test_what_lies_above_the_level_is_counted(tmp_path):
    make(tmp_path, "animals/cat/1.jpg", "animals/dog/2.jpg", "animals/loose.jpg", "loose.jpg")
    listing = scan_folder(tmp_path, layout=Layout(class_depth=2))
    assert len(listing) == 2
    assert listing.skipped["outside any class folder"] == 2


@pytest.mark.parametrize(
    ("paths", "sentence"),
    [
        (["down/flowers/rose/1.jpg", "down/flowers/tulip/2.jpg"], "did you mean {root}/down/flowers?"),
        (["1.jpg", "2.jpg"], "2 files directly in it and no class folders; move the images of each class"),
        (["images/1.jpg", "labels.csv"], "if labels.csv is a table of labels: --labels {root}/labels.csv"),
        (["train_images/1.jpg", "test_images/2.jpg", "train.csv"], "such as --labels {root}/train.csv"),
        (["a-train.tfrecord-00000-of-00001"], "a dataset of TFRecord files"),
        (["data/train-00000-of-00001.parquet"], "a dataset in Parquet or Arrow files"),
        (["shard-000000.tar"], "WebDataset shards"),
    ],
)
def test_other_layouts_are_named_for_what_they_are(tmp_path, paths, sentence):
    make(tmp_path, *paths)
    with pytest.raises(DatasetError, match=re.escape(sentence.format(root=tmp_path))):
        scan_folder(tmp_path)


@pytest.mark.parametrize(
    ("paths", "note"),
    [
        (
            ["animals/cat/1.jpg", "animals/dog/2.jpg", "cars/3.jpg"],
            "animals has 2 folders inside, cat, dog: ",
        ),
        (
            ["cat/train/1.jpg", "cat/test/2.jpg", "dog/3.jpg"],
            "cat has 2 folders inside, test, train: they look like splits",
        ),
        (["Cat/1.jpg", "cat/2.jpg"], "the classes Cat and cat differ in upper and lower case alone"),
    ],
)
def test_what_may_have_been_meant_otherwise_is_noted(tmp_path, paths, note):
    make(tmp_path, *paths)
    (found,) = scan_folder(tmp_path).notes
    assert found.startswith(note)


def test_include_and_exclude(tmp_path):
    make(tmp_path, "cat/1.jpg", "cat/old/2.jpg", "dog/3.jpg", "dog/4.png", "bird/5.jpg")
    listing = scan_folder(tmp_path, layout=Layout(include=("cat", "dog"), exclude=("*.png", "cat/old/*")))
    assert list(classes(listing)) == ["cat/1.jpg", "dog/3.jpg"]
    assert dict(listing.skipped) == {
        "files left out by --include": 1,
        "files left out by --exclude cat/old/*": 1,
        "files left out by --exclude *.png": 1,
    }


def test_names_that_do_not_match_are_not_all_listed(tmp_path):
    make(tmp_path, *(f"class{number:04d}/1.jpg" for number in range(300)))
    with pytest.raises(ConfigError) as refused:
        scan_folder(tmp_path, ["class0000", "nobody"])
    assert "has no nobody" in str(refused.value)
    assert len(str(refused.value)) < 500


def test_more_classes_than_16_bits_hold(tmp_path):
    listing = scan_folder(make(tmp_path, "a/1.jpg", "b/2.jpg"))
    listing._labels[1] = 70_000
    assert listing.labels.tolist() == [0, 70_000]
