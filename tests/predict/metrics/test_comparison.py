"""Figures of two models on the same records, against other people's formulas, and the command with several runs."""

import csv
import dataclasses
import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import chi2, norm
from sklearn.metrics import cohen_kappa_score

from shardstream.predict.__main__ import main
from shardstream.predict.inference.selection import select_stratified
from shardstream.predict.metrics.comparison import Cost, OtherPredictions, compare, correct_for_multiplicity
from shardstream.predict.metrics.paired_tests import cohen_kappa, difference_estimate, mcnemar

RNG = np.random.default_rng(0)


def statsmodels_exact(b, c):
    """As statsmodels.stats.contingency_tables.mcnemar(exact=True) has it."""
    from scipy.stats import binom

    return 1.0 if b + c == 0 else min(1.0, 2 * binom.cdf(min(b, c), b + c, 0.5))


@pytest.mark.parametrize(
    ("fixes", "regressions"),
    [(0, 0), (1, 0), (5, 0), (3, 3), (12, 4), (121, 59), (59, 121), (4000, 4200), (900_000, 903_000)],
)
def test_mcnemar_is_that_of_others(fixes, regressions):
    assert mcnemar(fixes, regressions) == pytest.approx(statsmodels_exact(fixes, regressions), rel=1e-8)
    assert mcnemar(fixes, regressions) == mcnemar(regressions, fixes)


def test_mcnemar_comes_close_to_chi_square_where_counts_are_large():
    fixes, regressions = 1100, 1000
    corrected = (abs(fixes - regressions) - 1) ** 2 / (fixes + regressions)
    assert mcnemar(fixes, regressions) == pytest.approx(chi2.sf(corrected, 1), rel=0.01)


@pytest.mark.parametrize("num_classes", [2, 3, 50])
def test_kappa_is_that_of_scikit_learn(num_classes):
    one, other = RNG.integers(0, num_classes, (2, 500))
    other = np.where(RNG.random(500) < 0.6, one, other)
    weights = np.ones(500)
    assert cohen_kappa(one, other, weights, num_classes=num_classes) == pytest.approx(
        cohen_kappa_score(one, other)
    )
    weights = RNG.random(500)
    assert cohen_kappa(one, other, weights, num_classes=num_classes) == pytest.approx(
        cohen_kappa_score(one, other, sample_weight=weights)
    )


def test_kappa_of_one_class_alone_is_not_defined():
    same = np.ones(9, int)
    assert cohen_kappa(same, same, np.ones(9), num_classes=3) is None


def test_the_interval_of_a_difference():
    # Bonett and Price (2012), written out anew.
    figure = difference_estimate(43, 14, 200)
    p12, p21 = 44 / 202, 15 / 202
    half = norm.ppf(0.975) * np.sqrt((p12 + p21 - (p12 - p21) ** 2) / 202)
    assert (figure.value, figure.low, figure.high) == pytest.approx(
        (29 / 200, p12 - p21 - half, p12 - p21 + half)
    )
    # No difference in ten records is no proof that there is none.
    none = difference_estimate(0, 0, 10)
    assert none.value == 0
    assert none.low < -0.1
    assert none.high > 0.1
    assert difference_estimate(10, 0, 10).high == 1


def test_the_interval_holds_the_truth_as_often_as_it_says():
    fixed, lost, size = 0.10, 0.04, 80
    drawn = RNG.multinomial(size, [fixed, lost, 1 - fixed - lost], 4000)
    figures = [difference_estimate(int(b), int(c), size) for b, c, _ in drawn]
    held = np.mean([figure.low <= fixed - lost <= figure.high for figure in figures])
    assert 0.93 < held < 0.99


COST = Cost(num_parameters=1, file_bytes=1, ms_per_picture=1.0)


def compared_on(make_outcomes, labels, right, right_other, weights, name="other"):
    """Compares two models of two classes of which only the correctness matters."""
    predicted, predicted_other = (np.where(values, labels, 1 - labels) for values in (right, right_other))
    ones = np.ones(len(labels), np.float32)
    other = OtherPredictions(predicted=predicted_other, probabilities=ones, actual_probabilities=ones)
    outcomes = make_outcomes(labels, np.eye(2)[predicted])
    return compare(outcomes, other, weights, name=name, cost=COST, num_classes=2)


def test_the_better_model_of_a_stratified_sample_is_not_the_one_with_more_fixes(make_outcomes):
    # 9,700 and 300 images, 100 drawn of each: the other model is better on the rare class alone.
    labels = np.repeat([0, 1], 100)
    weights = np.where(labels == 0, 97.0, 3.0)
    number = np.arange(200) % 100
    right = np.where(labels == 0, number < 99, number < 60)
    right_other = np.where(labels == 0, number < 90, number < 90)
    one = compared_on(make_outcomes, labels, right, right_other, weights)
    assert one.whole.num_fixes > 2 * one.whole.num_regressions
    assert one.whole.difference.value == pytest.approx(0.97 * -0.09 + 0.03 * 0.3)
    assert one.whole.accuracy == pytest.approx(0.97 * 0.99 + 0.03 * 0.6)
    assert one.is_weighted
    assert one.is_clear
    assert one.whole.difference.high < 0
    # Within a class all weights are equal.
    assert one.classes[1].p_value == pytest.approx(statsmodels_exact(30, 0))


def test_the_test_of_a_weighted_difference_holds_its_level(make_outcomes):
    rng = np.random.default_rng(8)
    labels = np.repeat([0, 1], [2000, 150])
    # Both models are equally good on the whole, and differ in either class.
    rates = np.where(labels == 0, 0.1, 0.3)
    wrong, wrong_other = rng.random((2, len(labels))) < rates
    truth = wrong.mean() - wrong_other.mean()
    clear = num_held = 0
    for seed in range(400):
        chosen = select_stratified("validation", labels, 160, seed=seed)
        rows = chosen.positions
        one = compared_on(make_outcomes, labels[rows], ~wrong[rows], ~wrong_other[rows], chosen.weights)
        clear += one.p_value < 0.05
        num_held += one.whole.difference.low <= truth <= one.whole.difference.high
        assert (one.p_value < 0.05) == (not one.whole.difference.low <= 0 <= one.whole.difference.high)
    assert abs(truth) < 0.01
    assert clear / 400 <= 0.05 + 3 * 0.011
    assert num_held / 400 >= 0.95 - 3 * 0.011


def test_of_many_equal_models_hardly_any_is_called_better(make_outcomes):
    rng = np.random.default_rng(9)
    called = parts = 0
    for _ in range(60):
        labels = rng.integers(0, 2, 300)
        right = rng.random(300) < 0.85
        several = [
            compared_on(make_outcomes, labels, right, rng.random(300) < 0.85, np.ones(300)) for _ in range(10)
        ]
        corrected = correct_for_multiplicity(several)
        called += any(one.is_clear for one in corrected)
        parts += any(part.stands_out for one in corrected for part in one.parts)
        assert all(new.p_value >= old.p_value for new, old in zip(corrected, several, strict=True))
    assert called <= 60 * 0.05 + 3 * 1.7
    assert parts <= 60 * 0.05 + 3 * 1.7


def test_memory_of_a_comparison_does_not_grow_with_the_classes(make_outcomes):
    import tracemalloc

    labels = np.arange(20_000) % 1000
    ones = np.ones(len(labels), np.float32)
    other = OtherPredictions(predicted=labels, probabilities=ones, actual_probabilities=ones)
    shares = np.zeros((len(labels), 5), np.float32)
    outcomes = make_outcomes(np.zeros(len(labels), int), shares)
    outcomes = dataclasses.replace(outcomes, labels=labels.astype(np.int32))
    tracemalloc.start()
    compare(outcomes, other, ones, name="other", cost=COST, num_classes=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / len(labels) < 200


@pytest.fixture(scope="module")
def others(trial, write_run, tmp_path_factory):
    """Runs beside the usual one, which is wrong about every tenth picture of its 81.

    `better` takes what looks like the next class for what it is where it is food; `reordered` is the usual model with
    its classes in another order; `larger` is the usual one that wants its pictures in another size.
    """
    folder = tmp_path_factory.mktemp("others")
    kernel = 4 * np.eye(3, dtype=np.float32)
    order = [2, 0, 1]
    names = [trial.info.class_names[label] for label in order]
    blind = kernel.copy()
    blind[1, 1] = 0  # Sees no green: what is interior goes to the first of the others.
    return {
        "blind": write_run(folder / "blind", trial.info, kernel=blind),
        "reordered": write_run(folder / "reordered", trial.info, class_names=names, kernel=kernel[:, order]),
        "larger": write_run(folder / "larger", trial.info, kernel=kernel, image_size=12),
        "strangers": write_run(folder / "strangers", trial.info, class_names=["food", "interior", "dog"]),
    }


def compared(trial, tmp_path, *runs):
    code = main(
        [str(trial.run), str(trial.data), "--all", "--compare", *map(str, runs), "--out", str(tmp_path)]
    )
    assert code == 0
    return json.loads((tmp_path / "metrics.json").read_text())["comparisons"]


def test_the_same_records_through_each_model(trial, others, tmp_path, capsys):
    blind, reordered, larger = compared(
        trial, tmp_path, others["blind"], others["reordered"], others["larger"]
    )
    # The same model under another order of its classes, or with larger pictures, says the same.
    for same in (reordered, larger):
        assert (same["num_fixes"], same["num_regressions"], same["mcnemar_p_value"]) == (0, 0, 1.0)
        assert (same["agreement"], same["cohen_kappa"]) == (1.0, 1.0)

    rows = rows_of(tmp_path)
    right = np.array([row["right"] == "yes" for row in rows])
    right_other = np.array([row["blind: right"] == "yes" for row in rows])
    assert blind["num_fixes"] == (~right & right_other).sum()
    assert blind["num_regressions"] == (right & ~right_other).sum() > 20
    assert blind["accuracy"] == pytest.approx(right_other.mean())
    assert blind["accuracy_difference"] == pytest.approx(right_other.mean() - right.mean())
    assert blind["mcnemar_p_value"] == pytest.approx(
        statsmodels_exact(blind["num_fixes"], blind["num_regressions"])
    )
    by_class = {part["class_name"]: part for part in blind["classes"]}
    assert by_class["interior"]["num_right"] == 24
    assert by_class["interior"]["num_right_other"] < 4
    assert blind["cost"]["num_parameters"] == 9
    assert blind["cost"]["file_bytes"] == (others["blind"] / "best.keras").stat().st_size
    assert blind["cost"]["ms_per_picture"] > 0

    table = pq.read_table(tmp_path / "predictions.parquet").to_pydict()
    assert table["blind: right"] == right_other.tolist()
    assert table["blind: predicted"] == [row["blind: predicted"] for row in rows]
    assert table["larger: actual_probability"] == pytest.approx(table["actual_probability"], abs=0.02)
    printed = capsys.readouterr().out
    assert re.search(r"RUN +blind +reordered +larger *\naccuracy +88\.9% ", printed)
    assert re.search(r"difference +-[0-9.]+% +\+0.0% +\+0\.0% *\n", printed)


@pytest.mark.parametrize(
    ("lang", "heading", "sentence"),
    [
        ("en", "Other models", "blind is worse: its accuracy is"),
        ("ko", "다른 모델", "blind 쪽이 못합니다. 정확도가"),
    ],
)
def test_the_page_shows_fixes_and_regressions(trial, others, tmp_path, lang, heading, sentence):
    arguments = [str(trial.run), str(trial.data), "--all", "--lang", lang, "--gallery", "4"]
    runs = [str(others[name]) for name in ("blind", "larger")]
    assert main([*arguments, "--compare", *runs, "--out", str(tmp_path)]) == 0
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    section = page.split('<section id="compare"')[1].split("</section>")[0]
    assert heading in section
    assert sentence in section
    blind, larger = section.split("<h3>")[1:]
    (found,) = (one for one in json.loads((tmp_path / "metrics.json").read_text())["comparisons"][:1])
    # At most twelve of each, with the paths of pictures that only one of both gets right.
    rows = {row["source_path"]: row for row in rows_of(tmp_path)}
    for kind, count, right in (("is-wrong", "num_regressions", "yes"), ("is-right", "num_fixes", "no")):
        cards = blind.split(f'<li class="card {kind}">')[1:]
        paths = [re.search(r'<p class="source"><bdi>([^<]+)</bdi>', card)[1] for card in cards]
        assert len(paths) == min(12, found[count])
        assert all(rows[path]["right"] == right != rows[path]["blind: right"] for path in paths)
    assert 'class="card' not in larger
    assert "0.0\u00a0%" in larger
    # Without other models there is nothing of all this.
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert 'id="compare"' not in (tmp_path / "index.html").read_text(encoding="utf-8")


def rows_of(out):
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_runs_that_are_called_alike_are_told_apart(trial, write_run, tmp_path):
    runs = [write_run(tmp_path / place / "first", trial.info) for place in ("a", "b")]
    names = [one["name"] for one in compared(trial, tmp_path / "out", *runs)]
    assert names == [str(run) for run in runs]


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        (
            ["{strangers}"],
            r"\S+/strangers: this model cannot be compared: only one of it and \S+ has 'dog', 'exterior'",
        ),
        (["{data}"], r"\S+: a dataset folder, expected a run folder made by `shardstream-train`"),
        (["{blind}", "{blind}"], r"--compare \S+/blind: given twice"),
        (["{run}"], r"--compare \S+/run: given twice"),
    ],
)
def test_what_cannot_be_compared(trial, others, tmp_path, capsys, runs, sentence):
    places = {**others, "data": trial.data, "run": trial.run}
    arguments = [str(trial.run), str(trial.data), "--out", str(tmp_path / "out"), "--compare"]
    assert main([*arguments, *(run.format(**places) for run in runs)]) == 2
    assert re.fullmatch(rf"shardstream-predict: {sentence}[^\n]*\n", capsys.readouterr().err)
    assert not (tmp_path / "out" / "index.html").exists()
