import numpy as np
import pytest

from shardstream.predict.findings.gallery import choose_rows, load_shown
from shardstream.predict.inference.thumbnails import Picture
from shardstream.train.runs.saved_model import ModelInfo

NOBODY = np.array([], np.int64)


def choose(outcomes, size, sampling="uniform", named=NOBODY, seed=1):
    return choose_rows(outcomes, sampling, size, seed=seed, named=named).tolist()


@pytest.fixture(name="of_certainties")
def _of_certainties(make_outcomes):
    """Pictures of class 0 with these probabilities of class 0; below 0.5 they are wrong."""
    return lambda *certainties: make_outcomes([0] * len(certainties), [[p, 1 - p] for p in certainties])


def test_wrong_ones_first_then_the_highest_loss(of_certainties):
    outcomes = of_certainties(0.9, 0.1, 0.6, 0.4, 0.6)
    assert choose(outcomes, 10) == [1, 3, 2, 4, 0]
    assert choose(outcomes, 0) == []


@pytest.mark.parametrize(
    ("sampling", "rows"),
    [("worst", [1, 3, 2]), ("confident-errors", [1, 3]), ("borderline", [3, 2, 1])],
)
def test_rankings_show_their_first(of_certainties, sampling, rows):
    outcomes = of_certainties(0.95, 0.1, 0.65, 0.4)
    assert choose(outcomes, 3, sampling) == rows


def test_of_too_many_most_are_wrong_and_some_right(of_certainties):
    outcomes = of_certainties(*np.linspace(0.01, 0.99, 1000))
    rows = np.array(choose(outcomes, 100))
    assert len(set(rows.tolist())) == 100
    assert (~outcomes.right[rows]).sum() == 75
    # Half of the right ones are the closest decisions, and the others are from anywhere.
    certainties = np.sort(outcomes.probabilities[rows[75:]])
    assert certainties[11] < 0.515 < certainties[12]
    assert certainties[-1] > 0.85
    assert choose(outcomes, 100) == rows.tolist() != choose(outcomes, 100, seed=2)


@pytest.mark.parametrize(("num_wrong", "num_right", "shown"), [(3, 500, 3), (500, 3, 97), (0, 500, 0)])
def test_where_there_are_few_of_a_kind_the_other_fills_the_places(
    of_certainties, num_wrong, num_right, shown
):
    outcomes = of_certainties(*[0.2] * num_wrong, *[0.8] * num_right)
    rows = choose(outcomes, 100)
    assert len(rows) == 100
    assert (~outcomes.right[rows]).sum() == shown


def test_every_confused_pair_is_seen_before_the_worst_fill_up(make_outcomes):
    # 300 times 0 predicted as 1 with certainty, and each other pair once with little.
    shares = [[0.01, 0.98, 0.005, 0.005]] * 300
    pairs = [(a, b) for a in range(4) for b in range(4) if a != b and (a, b) != (0, 1)]
    labels = [0] * 300 + [a for a, _ in pairs]
    shares += [np.full(4, 0.24) + 0.04 * np.eye(4)[b] for _, b in pairs]
    outcomes = make_outcomes(labels, shares)
    shown = choose(outcomes, 40)
    assert set(range(300, 300 + len(pairs))) <= set(shown)


def test_rows_that_other_parts_speak_of_are_taken(of_certainties):
    outcomes = of_certainties(*np.linspace(0.01, 0.99, 200))
    named = np.array([199, 120, 199])
    assert {199, 120} <= set(choose(outcomes, 10, named=named))
    assert len(choose(outcomes, 1, named=named)) == 1


def test_pictures_are_read_again_in_the_order_of_the_rows(trial, make_outcomes):
    positions = np.array([3, 40, 41, 75])
    outcomes = make_outcomes(
        [trial.photos[p].label for p in positions],
        [[0.5, 0.3, 0.2]] * 4,
        positions=positions,
    )
    counts = []
    shown = load_shown(
        trial.info,
        "validation",
        outcomes,
        np.array([3, 0, 2]),
        model=ModelInfo.load(trial.run),
        max_bytes=10_000,
        on_progress=counts.append,
    )
    assert [one.prediction.record.source_path for one in shown] == [trial.photos[p].path for p in (75, 3, 41)]
    assert [one.picture.content for one in shown] == [trial.photos[p].encoded() for p in (75, 3, 41)]
    assert all(isinstance(one.picture, Picture) and one.picture.is_record for one in shown)
    assert [one.prediction.actual_probability for one in shown] == [
        outcomes.actual_probabilities[row] for row in (3, 0, 2)
    ]
    assert counts == [3]


def test_no_rows_are_no_pictures(trial, make_outcomes):
    outcomes = make_outcomes([0], [[1.0, 0.0, 0.0]])
    model = ModelInfo.load(trial.run)
    assert load_shown(trial.info, "validation", outcomes, NOBODY, model=model, max_bytes=1000) == []
