"""Recognizes folder names and table values that mean a split, in all usual spellings."""

import collections
import re
import unicodedata
from collections.abc import Iterable

from shardstream.ingest.dataset.split_hash import TEST, TRAIN, VALIDATION

_WORDS = {
    TRAIN: "train training trn tr learn 학습 학습용 훈련 훈련용 트레이닝 训练 訓練 学習",
    VALIDATION: "val valid validation validate dev devel development eval evaluation 검증 검증용 验证 驗證 検証",
    TEST: "test testing tst 테스트 테스트용 시험 시험용 测试 測試 テスト",
}
_SPLIT_OF_WORD = {word: split for split, words in _WORDS.items() for word in words.split()}
# Words without meaning for the split: "train_images", "Test Set", "valid-data", "ILSVRC2012_img_val".
_FILLERS = """
    image images img imgs photo photos pic pics picture pictures set data dataset split folder dir files
    데이터 이미지 데이터셋
"""
_FILLER_ENDS = ("dataset", "images", "image", "imgs", "data", "set", "데이터")
_TOKENS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+")


def split_of_word(word: str) -> str:
    """Returns the split that a word means by itself, such as "Training_set" or "dev"; empty if none."""
    split, rest = _parse(word)
    return "" if rest else split


def split_folders(names: Iterable[str]) -> dict[str, str]:
    """Returns the split of each folder name that means one. Names may have other words if their siblings share them.

    So "seg_train" and "seg_test" are splits, but "training_shoes" next to "boots" is not.
    """
    parsed = {name: _parse(name) for name in names}
    siblings: dict[tuple[str, ...], set[str]] = collections.defaultdict(set)
    for split, rest in parsed.values():
        siblings[rest].add(split)
    return {
        name: split
        for name, (split, rest) in parsed.items()
        if split and (not rest or len(siblings[rest] - {""}) > 1)
    }


def _parse(name: str) -> tuple[str, tuple[str, ...]]:
    """Returns the split in a name, and the words that are neither a split nor a filler."""
    split, rest = "", []
    for token in map(_without_filler, _TOKENS.findall(unicodedata.normalize("NFC", name))):
        if token in _SPLIT_OF_WORD and not split:
            split = _SPLIT_OF_WORD[token]
        elif token and token not in _FILLERS.split():
            rest.append(token)
    return split, tuple(rest)


def _without_filler(token: str) -> str:
    token = token.lower()
    for end in _FILLER_ENDS:
        if token.endswith(end) and token.removesuffix(end) in _SPLIT_OF_WORD:
            return token.removesuffix(end)
    return token
