from scripts.bench import features as bench_features


def test_the_ratio_is_the_median_of_the_rounds():
    times = {
        "model.predict": [(1.0, 2.0), (1.0, 2.0), (9.0, 9.0)],
        "the pass": [(2.0, 2.0), (1.0, 4.0), (9.0, 9.0)],
    }
    assert bench_features.ratios(times) == (1.0, 1.0)


def test_a_head_is_fitted_to_drawn_features():
    row = bench_features.fit_drawn(600)
    assert row["examples"] == 600
    assert 0.15 < row["accuracy"] <= 1
    assert row["core_secs"] > 0
