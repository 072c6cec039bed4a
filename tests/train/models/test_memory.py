import keras
import pytest

from shardstream.train.models.memory import training_bytes


@pytest.mark.parametrize(("policy", "itemsize"), [("float32", 4), ("mixed_bfloat16", 2)])
def test_weights_with_their_averages_and_all_outputs(policy, itemsize):
    inner = keras.Sequential(
        [keras.Input((8, 8, 4)), keras.layers.Conv2D(2, 3, dtype=policy), keras.layers.Flatten(dtype=policy)]
    )
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 1, dtype=policy),
            inner,
            keras.layers.Dense(5, dtype="float32"),
        ]
    )
    weights = (3 * 4 + 4) + (9 * 4 * 2 + 2) + (72 * 5 + 5)
    outputs = itemsize * (8 * 8 * 4 + 6 * 6 * 2 + 72) + 4 * 5
    assert training_bytes(model, 10) == 16 * weights + 10 * outputs
