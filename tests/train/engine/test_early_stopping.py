import keras
import pytest

from shardstream.train.engine.early_stopping import EarlyStopping


def started(history: list[dict[str, float]], patience: int) -> EarlyStopping:
    callback = EarlyStopping(history, patience=patience)
    callback.set_model(keras.Sequential())
    callback.model.stop_training = False
    return callback


@pytest.mark.parametrize("resumed_after", range(6))
@pytest.mark.parametrize(
    ("val_losses", "patience", "stops_after"),
    [
        ([3, 2, 1, 1.5, 1.2, 1.1], 2, 5),
        ([3, 2, 1, 1, 1, 1], 2, 5),  # As low is no new low.
        ([3, 2, 2.5, 1, 1.5, 0.5], 2, None),
        ([1, 2, 2, 2, 2, 2], 1, 2),
    ],
)
def test_the_end_comes_when_there_was_no_new_low_for_long_enough(
    val_losses, patience, stops_after, resumed_after
):
    """A run that goes on from any epoch before the end stops where it would have."""
    callback, stopped = started([], patience), None
    for i, val_loss in enumerate(val_losses):
        if i == resumed_after and not stopped:
            callback = started([{"val_loss": loss} for loss in val_losses[:i]], patience)
        callback.on_epoch_end(i, {"val_loss": val_loss})
        if callback.model.stop_training and not stopped:
            stopped = i + 1
    assert stopped == stops_after
