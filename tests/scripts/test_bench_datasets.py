import numpy as np
import pytest

import shardstream
from scripts.bench import datasets
from scripts.bench.datasets import BenchConfig, Trial, join_seeds, paired, print_table, summarize


def test_a_row_is_beside_the_best_of_the_others(capsys):
    correct = {"tutorial": [1, 0, 0, 0] * 2, "small": [1, 1, 0, 0] * 2, "lite0": [1, 1, 1, 0, 1, 1, 1, 1]}
    rows = summarize(
        "rooms",
        {model: np.array(values, float) for model, values in correct.items()},
        {
            model: [Trial(np.array(values), secs, 2 * secs) for secs in (2, 9, 3)]
            for model, values in correct.items()
        },
    )
    assert [(row["model"], row["accuracy"], row["beside"]) for row in rows] == [
        ("tutorial", 0.25, "lite0"),
        ("small", 0.5, "lite0"),
        ("lite0", 0.875, "small"),
    ]
    low, high = rows[2]["interval"]
    assert 0.4 < low < 0.875 < high < 1
    print_table(rows)
    printed = capsys.readouterr().out
    assert "| rooms | lite0 | 0.875 (" in printed
    assert printed.count("| 3 | 6 |") == 3  # Medians.


@pytest.mark.parametrize(
    ("splits_from_folders", "expected"), [(False, [1, 0, 1, 1]), (True, [1, 0.5])], ids=["own", "given"]
)
def test_the_same_image_counts_once(tmp_path, splits_from_folders, expected):
    config = BenchConfig(folders=(tmp_path,), splits_from_folders=splits_from_folders)
    assert join_seeds(config, [np.array([True, False]), np.array([True, True])]).tolist() == expected


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [([1, 1, 0, 0], [1, 1, 0, 0], 0, 0), ([1, 1, 1, 1], [0, 0, 0, 0], 1, 1), ([1, 0], [0, 1], -1.386, 1.386)],
)
def test_differences_are_paired(one, other, low, high):
    assert paired(np.array(one, float), np.array(other, float)) == pytest.approx((low, high), abs=1e-3)


def test_a_training_whose_result_is_there_is_not_repeated(tmp_path, capsys, monkeypatch):
    config = BenchConfig(
        folders=(tmp_path / "rooms",), seeds=(1, 2), models=("small", "auto"), results=tmp_path / "results"
    )
    trained = []

    def train(_data, model, seed, _scratch):
        trained.append((model, seed))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return Trial(np.array([model == "auto", True]), 1.0, 2.0)

    monkeypatch.setattr(datasets, "run_trial", train)
    monkeypatch.setattr(shardstream, "build_dataset", lambda *_, **__: None)
    with pytest.raises(KeyboardInterrupt):
        datasets.main(config)
    datasets.main(config)
    assert trained == [("small", 1), ("auto", 1), ("small", 2), ("small", 2), ("auto", 2)]
    assert "| rooms | auto | 1.000 (" in capsys.readouterr().out
