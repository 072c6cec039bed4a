"""Limits: what is compared, what is said, and the exit code of the command."""

import json
import re

import numpy as np
import pytest

from shardstream.ingest.common.errors import ConfigError, LimitError
from shardstream.predict.__main__ import main
from shardstream.predict.config import PredictConfig
from shardstream.predict.metrics.classification import summarize
from shardstream.predict.metrics.gate import Limits, check_limits, enforce

NAMES = ("food", "interior", "exterior")


@pytest.fixture(scope="module", name="summary_of")
def _summary_of(make_outcomes):
    def summary_of(labels, predicted, num_classes):
        outcomes = make_outcomes(labels, np.eye(num_classes)[predicted])
        return summarize(outcomes, np.ones(len(labels)), num_classes=num_classes)

    return summary_of


@pytest.fixture(scope="module")
def summary(summary_of):
    """95 of 100 right; recall of food 45/50, of interior 50/50, of exterior unknown."""
    return summary_of([0] * 50 + [1] * 50, [0] * 45 + [1] * 55, 3)


@pytest.mark.parametrize(
    ("limits", "kept", "clear"),
    [
        (Limits(accuracy=0.95), [True], [False]),  # At the limit it is kept.
        (Limits(accuracy=0.9500001), [False], [False]),
        (Limits(accuracy=0.8), [True], [True]),
        (Limits(accuracy=0.99), [False], [True]),  # The interval is 0.888 to 0.978.
        (Limits(accuracy=0), [True], [True]),
        (Limits(accuracy=1), [False], [True]),
        # The lowest first; a class without pictures has shown nothing.
        (Limits(class_recall=0.9), [False, True, True], [False, False, True]),
        (Limits(class_recall=0.95, accuracy=0.5), [True, False, False, True], [True, False, False, False]),
        (Limits(), [], []),
    ],
)
def test_the_figure_itself_is_compared(summary, limits, kept, clear):
    checks = check_limits(summary, NAMES, limits)
    assert [check.is_kept for check in checks] == kept
    assert [check.is_clear for check in checks] == clear


def test_one_sentence_says_what_is_missing(summary):
    enforce(check_limits(summary, NAMES, Limits(accuracy=0.95)))
    with pytest.raises(LimitError) as caught:
        enforce(check_limits(summary, NAMES, Limits(accuracy=0.99, class_recall=0.92)))
    assert str(caught.value) == (
        "accuracy 95.00% (95 of 100) is below --min-accuracy 99.00%; 95 % interval 88.8% to 97.8%; "
        "recall of 'exterior' is unknown: no image of that class was predicted (--min-class-recall 92.00%); "
        "recall of 'food' 90.00% (45 of 50) is below --min-class-recall 92.00%; 95 % interval 78.6% to 95.7%, "
        "which contains the limit: predict more images to be sure"
    )
    assert caught.value.exit_code == 3


def test_a_figure_just_below_its_limit_has_as_many_digits_as_it_takes(summary_of):
    labels = np.zeros(50_000, int)
    summary = summary_of(labels, (np.arange(50_000) >= 47_499).astype(int), 2)
    (check,) = check_limits(summary, NAMES, Limits(accuracy=0.95))
    assert "accuracy 94.998% (47,499 of 50,000) is below --min-accuracy 95.000%" in check.sentence()


def test_of_many_classes_the_worst_are_named(summary_of):
    labels = np.repeat(np.arange(1000), 2)
    summary = summary_of(labels, np.where(np.arange(2000) % 2, labels, 0), 1000)
    with pytest.raises(LimitError, match=r"'c1' 50.00% .*'c5' 50.00% .*; and 994 more$"):
        enforce(check_limits(summary, [f"c{i}" for i in range(1000)], Limits(class_recall=0.6)))


def test_the_command_writes_the_report_and_ends_with_3(trial, tmp_path, capsys):
    # 72 of 81 are right, 24 of 27 in each class.
    arguments = [str(trial.run), str(trial.data), "--all", "--out", str(tmp_path)]
    assert main([*arguments, "--min-accuracy", "0.95", "--min-class-recall", "0.85"]) == 3
    out, err = capsys.readouterr()
    assert re.fullmatch(r"shardstream-predict: accuracy 88.89% \(72 of 81\) is below [^\n]*\n", err)
    assert "recall of 'food' 88.89% (24 of 27) meets --min-class-recall 85.00%" in out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["limits"][0] == {
        "what": "accuracy",
        "option": "--min-accuracy",
        "limit": 0.95,
        "value": 72 / 81,
        "num_right": 72,
        "num_examples": 81,
        "kept": False,
        "clear": True,
    }
    assert [limit["kept"] for limit in metrics["limits"]] == [False, True, True, True]
    assert (tmp_path / "index.html").is_file()


def test_a_model_that_keeps_to_its_limits_ends_with_0(trial, tmp_path, capsys):
    arguments = [str(trial.run), str(trial.data), "--sample", "20", "--min-accuracy", "0.5", "--json"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["limits"][0]["kept"] is True


@pytest.mark.parametrize("value", [-0.1, 1.1, 95, float("nan")])
@pytest.mark.parametrize("name", ["min_accuracy", "min_class_recall"])
def test_limits_are_shares(tmp_path, name, value):
    with pytest.raises(ConfigError, match=r"has to be a fraction from 0 to 1, such as 0\.95, got"):
        PredictConfig(run=tmp_path, data=tmp_path, **{name: value})
