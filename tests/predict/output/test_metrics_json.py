"""What a report says of the training."""

import json

import pytest

from shardstream.predict.output.metrics_json import options_used


def test_a_linear_head_has_no_options_of_training_by_epochs():
    options = {"model": "lite0", "epochs": 0, "learning_rate": 0.1, "steps_per_epoch": 6, "seed": 1}
    found = json.loads(options_used(json.dumps(options), model="lite0", image_size=300))
    assert found == {"model": "lite0", "seed": 1, "image_size": 300}


def test_the_options_of_the_other_candidate_of_auto_are_left_out():
    options = {"model": "auto", "epochs": 50, "batch_size": 16, "image_size": 96, "seed": 1}
    found = json.loads(options_used(json.dumps(options), model="lite0", image_size=300))
    assert found == {"model": "auto", "seed": 1, "image_size": 300}
    assert options_used(json.dumps(options), model="small", image_size=96) == json.dumps(options)


@pytest.mark.parametrize("config", ['{"epochs": 3, "learning_rate": 0.1}', '{"epochs":', "[0]", "[" * 99_999])
def test_other_configs_are_shown_as_they_are(config):
    assert options_used(config, model="small", image_size=96) == config
