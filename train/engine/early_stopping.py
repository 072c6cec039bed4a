"""Early stopping."""

import logging
from collections.abc import Mapping, Sequence
from typing import cast

import keras

logger = logging.getLogger(__name__)


class EarlyStopping(keras.callbacks.Callback):
    """Ends training when the validation loss has not reached a new minimum for some epochs.

    It uses the complete history, also after a resume, and several hosts come to the same decision. Keras's own callback
    has internal counters.
    """

    def __init__(self, history: Sequence[Mapping[str, float]], *, patience: int) -> None:
        """Takes the metrics of the completed epochs, and how many epochs may pass without a new minimum."""
        super().__init__()
        self._val_losses = [row["val_loss"] for row in history]
        self._patience = patience

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Stops training if the patience is exhausted."""
        self._val_losses.append((logs or {})["val_loss"])
        best = self._val_losses.index(min(self._val_losses))
        if epoch - best >= self._patience:
            cast(keras.Model, self.model).stop_training = True
            logger.info("stops early: the lowest val_loss was that of epoch %d", best + 1)
