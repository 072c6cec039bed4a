import numpy as np
import pytest

from scripts.bench.datasets import Trial, paired, print_table, summarize


def trial(*correct, secs=1.0):
    return Trial(correct=np.array(correct, bool), secs=secs)


def test_a_row_is_over_all_seeds_and_beside_the_best_of_the_others(capsys):
    trials = {
        "tutorial": [trial(1, 0, 0, 0), trial(1, 0, 0, 0)],
        "small": [trial(1, 1, 0, 0), trial(1, 1, 0, 0)],
        "lite0": [trial(1, 1, 1, 0, secs=3), trial(1, 1, 1, 1, secs=5)],
    }
    rows = summarize("rooms", trials)
    assert [(row["model"], row["accuracy"], row["beside"]) for row in rows] == [
        ("tutorial", 0.25, "lite0"),
        ("small", 0.5, "lite0"),
        ("lite0", 0.875, "small"),
    ]
    low, high = rows[2]["interval"]
    assert 0.4 < low < 0.875 < high < 1
    print_table(rows)
    assert "| rooms | lite0 | 0.875 (" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [([1, 1, 0, 0], [1, 1, 0, 0], 0, 0), ([1, 1, 1, 1], [0, 0, 0, 0], 1, 1), ([1, 0], [0, 1], -1.386, 1.386)],
)
def test_differences_are_paired(one, other, low, high):
    assert paired(np.array(one, bool), np.array(other, bool)) == pytest.approx((low, high), abs=1e-3)
