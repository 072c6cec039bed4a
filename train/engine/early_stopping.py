"""When more epochs are of no use."""

import logging
from collections.abc import Mapping, Sequence
from typing import cast

import keras

logger = logging.getLogger(__name__)


class EarlyStopping(keras.callbacks.Callback):
    """Ends training when the validation loss has not reached a new low for some epochs.

    It knows the whole history, where a run goes on too, and where several hosts train each comes to the same end.
    Keras's own callback counts in itself.
    """

    def __init__(self, history: Sequence[Mapping[str, float]], *, patience: int) -> None:
        """Takes the figures of the epochs that are over, and how many may pass without a new low."""
        super().__init__()
        self._val_losses = [row["val_loss"] for row in history]
        self._patience = patience

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Asks for the end if it is time."""
        self._val_losses.append((logs or {})["val_loss"])
        best = self._val_losses.index(min(self._val_losses))
        if epoch - best >= self._patience:
            cast(keras.Model, self.model).stop_training = True
            logger.info("stops early: the lowest val_loss was that of epoch %d", best + 1)
