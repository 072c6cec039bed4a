import pytest

from shardstream.ingest.pipeline.split_folders import split_folders, split_of_word


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("training_set", "train"),
        ("trainset", "train"),
        ("TRAIN_IMAGES", "train"),
        ("TrainImages", "train"),
        ("1.Training", "train"),
        ("학습", "train"),
        ("val", "validation"),
        ("valid", "validation"),
        ("Validation Set", "validation"),
        ("val2017", "validation"),
        ("dev", "validation"),
        ("검증데이터", "validation"),
        ("test", "test"),
        ("testing", "test"),
        ("test-set", "test"),
        ("테스트", "test"),
        ("bus", ""),
        ("train station", ""),
        ("contest", ""),
        ("images", ""),
        ("", ""),
    ],
)
def test_the_usual_spellings_of_splits(word, split):
    assert split_of_word(word) == split


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train", "test"], {"train": "train", "test": "test"}),
        (["seg_train", "seg_test", "seg_pred"], {"seg_train": "train", "seg_test": "test"}),
        (["train", "bus"], {"train": "train"}),
        (["training_shoes", "boots"], {}),
        (["train", "val", "sketches"], {"train": "train", "val": "validation"}),
    ],
)
def test_other_words_count_where_siblings_share_them(names, splits):
    assert split_folders(names) == splits
