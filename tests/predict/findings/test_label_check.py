"""Labels held against features of the whole dataset: on digits with planted mistakes, whose pixels are the features."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import load_digits

from shardstream.predict.findings import label_check
from shardstream.predict.findings.label_check import check_labels
from shardstream.predict.inference.backbone_features import DatasetFeatures

NAMES = tuple("0123456789")


def make_info(keep_together="duplicates", class_names=NAMES):
    return SimpleNamespace(
        class_names=class_names,
        num_classes=len(class_names),
        split_rule=SimpleNamespace(keep_together=keep_together),
    )


def plant(seed, blur, noise):
    """Returns features of digits in two splits, and which labels are wrong, by split."""
    images, digits = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    values = (images / 16 + rng.normal(0, blur, images.shape)).astype(np.float16)
    wrong = rng.random(len(digits)) < noise
    labels = np.where(wrong, (digits + rng.integers(1, 10, len(digits))) % 10, digits).astype(np.int32)
    parts = {"train": slice(0, 1300), "validation": slice(1300, None)}
    features = {
        name: SimpleNamespace(
            values=values[rows], labels=labels[rows], names=[f"{name}/{i}" for i in range(len(labels[rows]))]
        )
        for name, rows in parts.items()
    }
    return DatasetFeatures(features), {name: np.flatnonzero(wrong[rows]) for name, rows in parts.items()}


@pytest.fixture
def clueless(make_outcomes):
    """Predictions of a model that knows nothing."""
    return make_outcomes([0, 1, 2], [[0.1] * 10] * 3)


# The noise of the features, and the accuracy that comes of it.
@pytest.mark.parametrize(("blur", "accuracy"), [(0.1, 0.92), (0.33, 0.8), (0.6, 0.6)])
def test_at_least_half_of_what_is_listed_is_wrong(clueless, monkeypatch, blur, accuracy):
    predict = label_check._predict
    found = []
    monkeypatch.setattr(label_check, "_predict", lambda *args: found.append(predict(*args)) or found[-1])
    features, wrong = plant(1, blur, noise=0.03)
    check = check_labels(make_info(), "validation", clueless, features)
    assert abs(found[0].right.mean() - accuracy) < 0.08
    assert (check.source, check.num_checked) == ("features", 1797)
    hits = [issue.entry.position in wrong[issue.entry.split] for issue in check.issues]
    assert sum(hits) >= 0.5 * len(hits)
    if accuracy > 0.9:
        assert sum(hits) >= 0.6 * sum(map(len, wrong.values()))
        assert {issue.entry.split for issue in check.issues} == {"train", "validation"}
        assert abs(check.expected_precision - np.mean(hits)) < 0.25
    for issue in check.issues:
        assert issue.entry.path == f"{issue.entry.split}/{issue.entry.position}"
        assert issue.entry.class_name == NAMES[issue.label] != NAMES[issue.suggested]


def test_what_belongs_together_is_never_on_both_sides(clueless, monkeypatch):
    features, _ = plant(1, 0.1, noise=0)
    seen = []
    monkeypatch.setattr(
        label_check, "predict_out_of_fold", lambda *_, groups, **__: seen.append(groups) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        check_labels(make_info(r"/(\d)"), "validation", clueless, features)
    assert len(np.unique(seen[0])) == 10


def test_too_many_classes_or_one_alone_leave_it_to_the_model(make_outcomes, monkeypatch):
    features, _ = plant(1, 0.1, noise=0)
    outcomes = make_outcomes([0], [[1.0] + [0.0] * 9])
    monkeypatch.setattr(label_check, "_MAX_OUTPUTS", 17969)
    assert check_labels(make_info(), "validation", outcomes, features).source == "predictions"
    monkeypatch.undo()
    one = SimpleNamespace(
        values=np.ones((30, 4), np.float16), labels=np.zeros(30, np.int32), names=["a"] * 30
    )
    info = make_info(class_names=("a",))
    outcomes = make_outcomes([0], [[1.0]])
    assert check_labels(info, "train", outcomes, DatasetFeatures({"train": one})).source == "predictions"


def test_without_features_the_model_decides(clueless):
    check = check_labels(make_info(), "validation", clueless, None)
    assert (check.source, check.num_checked, list(check.issues)) == ("predictions", 3, [])
    assert check.expected_precision is None
