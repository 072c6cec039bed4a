import tracemalloc

import numpy as np
import pytest

from shardstream.predict.inference.prediction import RecordBatch
from shardstream.predict.inference.prediction_table import PredictionTableBuilder, top_k


@pytest.mark.parametrize("num_classes", [1, 2, 5, 20, 21, 1000])
def test_the_likeliest_are_those_that_sorting_finds(num_classes):
    probabilities = np.random.default_rng(num_classes).dirichlet(np.ones(num_classes), 50).astype(np.float32)
    expected = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(top_k(probabilities), expected)


@pytest.mark.parametrize("num_classes", [3, 1000])
def test_of_equal_ones_the_first_is_what_the_model_says(num_classes):
    assert top_k(np.full((2, num_classes), 1 / num_classes))[:, 0].tolist() == [0, 0]


def test_columns_are_what_came_batch_by_batch(make_record):
    builder = PredictionTableBuilder(np.array([4, 7, 9]), 2)
    images = np.stack([np.zeros((8, 8, 3)), np.full((8, 8, 3), 255)]).astype(np.uint8)
    first = [make_record("food/x/a.jpg"), make_record("food/y/b.jpg", label=1, source_width=99)]
    builder.add(RecordBatch(records=first, images=images), np.array([[0.9, 0.1], [0.7, 0.3]], np.float32))
    chequered = (np.indices((8, 8)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    last = RecordBatch(records=[make_record("food/x/c.jpg")], images=chequered[None])
    builder.add(last, np.array([[0.5, 0.5]], np.float32))
    outcomes = builder.finish()
    assert outcomes.positions.tolist() == [4, 7, 9]
    assert outcomes.right.tolist() == [True, False, True]
    np.testing.assert_allclose(outcomes.losses, -np.log([0.9, 0.3, 0.5]), rtol=1e-6)
    np.testing.assert_allclose(outcomes.margins, [0.8, 0.4, 0.0], atol=1e-6)
    np.testing.assert_allclose(outcomes.brier, [0.02, 0.98, 0.5], rtol=1e-5)
    assert outcomes.brightness.round().tolist() == [0, 255, 128]
    assert outcomes.sharpness[2] > 500 > outcomes.sharpness[0] == 0
    assert outcomes.widths.tolist() == [640, 99, 640]
    assert [outcomes.folder_names[number] for number in outcomes.folders] == ["food/x", "food/y", "food/x"]


def test_a_record_costs_less_than_a_hundred_bytes(make_record):
    num_batches = 400
    records = [make_record(f"food/{i}.jpg") for i in range(100)]
    batch = RecordBatch(records=records, images=np.zeros((100, 2, 2, 3), np.uint8))
    probabilities = np.random.default_rng(0).dirichlet(np.ones(10), 100).astype(np.float32)
    tracemalloc.start()
    builder = PredictionTableBuilder(np.arange(100 * num_batches), 10)
    for _ in range(num_batches):
        builder.add(batch, probabilities)
    outcomes = builder.finish()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept / len(outcomes) < 100


def test_folders_without_end_do_not_fill_the_memory(make_record):
    records = [make_record(f"food/{i}/a.jpg") for i in range(5000)]
    builder = PredictionTableBuilder(np.arange(5000), 2)
    images = np.zeros((5000, 1, 1, 3), np.uint8)
    builder.add(RecordBatch(records=records, images=images), np.full((5000, 2), 0.5, np.float32))
    outcomes = builder.finish()
    assert len(outcomes.folder_names) == 4097
    assert {outcomes.folder_names[number] for number in outcomes.folders[4096:]} == {"…"}
