import dataclasses
from pathlib import Path

import keras
import pytest

from shardstream.train.config import TrainConfig
from shardstream.train.models.optimizers import (
    RECIPES,
    Recipe,
    balanced_weights,
    default_batch_size,
    default_epochs,
    learning_rate_schedule,
    make_optimizer,
    make_recipe,
)


def test_options_win_over_the_models_recipe():
    config = TrainConfig(
        data_dir=Path("d"), run=Path("r"), model="notebook", weight_decay=0.3, label_smoothing=0.2
    )
    assert make_recipe(config.model, dataclasses.asdict(config)) == Recipe(
        learning_rate=0.001,
        weight_decay=0.3,
        label_smoothing=0.2,
        schedule="constant",
        most_epochs=20,
        warmup_epochs=0.0,
    )


def test_zero_is_an_option_too():
    config = TrainConfig(data_dir=Path("d"), run=Path("r"), weight_decay=0.0)
    assert make_recipe(config.model, dataclasses.asdict(config)).weight_decay == 0.0


def test_seed_is_trained_as_the_notebook_did():
    optimizer = make_optimizer(RECIPES["notebook"], epochs=20, steps_per_epoch=7)
    assert type(optimizer) is keras.optimizers.Adam
    assert optimizer.get_config() == keras.optimizers.Adam(0.001, name=optimizer.name).get_config()
    assert RECIPES["notebook"].label_smoothing == 0
    assert default_epochs(RECIPES["notebook"], 224, 32) == 20


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "epochs"),
    [
        (10_000, 32, 20),
        (1_600, 32, 20),
        (1_280, 32, 25),
        (640, 32, 50),
        (592, 16, 50),
        (960, 16, 34),  # As in batches of 32.
        (1_280, 128, 50),
        (96, 16, 84),  # 6 steps each.
        (16, 16, 100),
    ],
)
def test_few_pictures_are_seen_more_often(num_examples, batch_size, epochs):
    assert default_epochs(RECIPES["small"], num_examples, batch_size) == epochs


@pytest.mark.parametrize(("num_examples", "epochs"), [(1_600, 20), (1_280, 25), (32, 50)])
def test_another_model_sees_very_few_pictures_no_more_often(num_examples, epochs):
    assert default_epochs(RECIPE, num_examples, 32) == epochs


@pytest.mark.parametrize(
    ("recipe", "num_examples", "batch_size"),
    [("small", 999, 16), ("small", 1000, 32), ("notebook", 999, 32), ("notebook", 1000, 32)],
)
def test_few_pictures_are_seen_fewer_at_a_time_by_small(recipe, num_examples, batch_size):
    assert default_batch_size(RECIPES[recipe], num_examples) == batch_size


RECIPE = Recipe(learning_rate=0.1, weight_decay=0.02, label_smoothing=0, schedule="cosine", most_epochs=50)


@pytest.mark.parametrize(
    ("epochs", "step", "expected"),
    [
        (20, 0, 0.0),
        (20, 10, 0.05),  # A tenth of 200 steps is warm-up.
        (20, 20, 0.1),
        (20, 110, 0.05),
        (20, 200, 0.0),
        (1000, 25, 0.05),  # Five epochs of warm-up at most.
        (1000, 50, 0.1),
        (1, 1, 0.1),  # A run of ten steps.
    ],
)
def test_warm_up_and_cosine(epochs, step, expected):
    schedule = learning_rate_schedule(RECIPE, epochs=epochs, steps_per_epoch=10)
    assert float(schedule(step)) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({"schedule": "constant", "warmup_epochs": 0.0}, {0: 0.1, 200: 0.1}),
        ({"schedule": "constant", "warmup_epochs": 1.5}, {0: 0.0, 15: 0.1, 110: 0.1, 200: 0.1}),
        ({"schedule": "cosine", "warmup_epochs": 0.0}, {0: 0.1, 100: 0.05, 200: 0.0}),
        ({"schedule": "cosine", "warmup_epochs": 10.0}, {50: 0.05, 100: 0.1, 150: 0.05, 200: 0.0}),
        ({"schedule": "cosine", "warmup_epochs": 99.0}, {100: 0.05, 200: 0.1}),
    ],
)
def test_schedules_that_were_chosen(options, rates):
    config = TrainConfig(data_dir=Path("d"), run=Path("r"), learning_rate=0.1, **options)
    schedule = learning_rate_schedule(
        make_recipe(config.model, dataclasses.asdict(config)), epochs=20, steps_per_epoch=10
    )
    found = {step: schedule if isinstance(schedule, float) else float(schedule(step)) for step in rates}
    assert found == pytest.approx(rates, abs=1e-7)


@pytest.mark.parametrize(
    ("counts", "weights"),
    [((10, 10), [1, 1]), ((30, 10), [2 / 3, 2]), ((8, 3, 1), [0.5, 4 / 3, 4]), ((5, 0, 15), [2, 0, 2 / 3])],
)
def test_balanced_classes_count_the_same_and_an_example_1_in_the_mean(counts, weights):
    assert balanced_weights(counts) == pytest.approx(weights)


def test_weight_decay_leaves_biases_and_normalisation_alone():
    optimizer = make_optimizer(RECIPE, epochs=1, steps_per_epoch=10)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), keras.layers.BatchNormalization()])
    optimizer.build(model.trainable_variables)
    decayed = [v.path for v in model.trainable_variables if optimizer._use_weight_decay(v)]
    assert decayed == [model.layers[0].kernel.path]
