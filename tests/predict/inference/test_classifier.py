import math
import re

import numpy as np
import pytest

from shardstream.ingest.common.errors import DatasetError
from shardstream.predict.inference.classifier import BATCH_SIZE, check_same_classes, load_predictor
from shardstream.predict.inference.prediction import RecordBatch
from shardstream.train.models import inference
from shardstream.train.runs.saved_model import load_model


@pytest.fixture(name="batch_of")
def _batch_of(make_record):
    return lambda images: RecordBatch(
        records=[make_record(position=i) for i in range(len(images))], images=images
    )


@pytest.mark.parametrize("size", [1, 5, BATCH_SIZE])
def test_a_padded_batch_is_predicted_as_the_model_alone_does(trial, batch_of, size):
    images = np.random.default_rng(size).integers(0, 256, (size, 8, 8, 3), np.uint8)
    model, _ = load_model(trial.run)
    probabilities = load_predictor(trial.run).predict(batch_of(images))
    assert probabilities.shape == (size, 3)
    np.testing.assert_allclose(
        probabilities,
        np.asarray(model(images.astype(np.float32))),
        rtol=1e-5,
    )


def test_a_large_model_is_called_with_its_variables_and_says_the_same(trial, batch_of, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    small = load_predictor(trial.run)
    monkeypatch.setattr(inference, "_MAX_CONSTANTS", 8)  # It has 9 parameters.
    large = load_predictor(trial.run)
    assert [len(one._probabilities.captured_inputs) for one in (small, large)] == [0, 1]
    np.testing.assert_allclose(small.predict(batch_of(images)), large.predict(batch_of(images)), rtol=1e-5)


@pytest.mark.parametrize(
    ("probabilities", "label", "predicted", "right", "loss"),
    [
        ([0.1, 0.7, 0.2], 1, 1, True, -math.log(0.7)),
        ([0.1, 0.7, 0.2], 0, 1, False, -math.log(0.1)),
        ([0.5, 0.5, 0.0], 1, 0, False, -math.log(0.5)),  # Of equal ones the first.
        ([1.0, 0.0, 0.0], 0, 0, True, 0.0),
        ([1.0, 0.0, 0.0], 2, 0, False, -math.log(1e-7)),  # Never infinite.
    ],
)
def test_prediction(make_record, make_prediction, probabilities, label, predicted, right, loss):
    prediction = make_prediction(make_record(label=label), probabilities)
    assert (prediction.predicted, prediction.right) == (predicted, right)
    assert prediction.probability == pytest.approx(max(probabilities))
    assert prediction.loss == pytest.approx(loss)
    assert math.copysign(1, prediction.loss) == 1  # Not "-0.000000" in the table.


def test_a_model_that_gives_no_numbers_is_refused(trial, batch_of, write_run, tmp_path):
    run = write_run(tmp_path / "run", trial.info, kernel=np.full((3, 3), np.nan, np.float32))
    with pytest.raises(
        DatasetError, match=r"best.keras: the model 'colors': gives nan, nan, nan for an image, expected 3"
    ):
        load_predictor(run).predict(batch_of(np.zeros((2, 8, 8, 3), np.uint8)))


def test_other_classes_are_refused_and_both_are_listed(trial, write_run, tmp_path):
    run = write_run(tmp_path / "run", trial.info, class_names=["food", "exterior", "interior"])
    model = load_predictor(run)
    sentence = (
        f"{run}: the model knows the classes 'food', 'exterior', 'interior', but {trial.data} has "
        "'food', 'interior', 'exterior'; give a model and a dataset with the same classes in the same order"
    )
    with pytest.raises(DatasetError, match=f"^{re.escape(sentence)}$"):
        check_same_classes(run, model.info, trial.info)
