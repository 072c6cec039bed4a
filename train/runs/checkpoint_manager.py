"""Decides when to save the state of a run, and measures the cost."""

import logging
import time
from collections.abc import Callable

from shardstream.ingest.common.durations import Interval
from shardstream.ingest.common.errors import MACHINE_ERRNOS
from shardstream.train.distributed.preemption import StoppedError, StopRequest, sender
from shardstream.train.engine.progress import BEGINNING, Progress
from shardstream.train.engine.trainer import Trainer
from shardstream.train.runs.callbacks import History, ModelSaver
from shardstream.train.runs.checkpoint import Checkpoint, Checkpoints

logger = logging.getLogger(__name__)

# An epoch shorter than this multiple of the time of a save is not saved at its end: at most 1 % of the time.
_MIN_SHARE = 100


class CheckpointManager:
    """Saves the state of a run periodically, at the end of an epoch, and when training is asked to stop."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        trainer: Trainer,
        history: History,
        models: ModelSaver,
        *,
        every: Interval,
        stop: StopRequest,
        began: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes all stateful objects, and when this process started the run, by `clock`."""
        self.num_saved = 0
        self.saving_secs = 0.0
        self.last_position = BEGINNING
        self._checkpoints = checkpoints
        self._trainer = trainer
        self._history = history
        self._models = models
        self._every = every
        self._stop = stop
        stop.what_is_kept = self.what_is_kept
        self._clock = clock
        self._began = began
        self._saved_at = clock()
        self._cost = 0.0
        self._position = BEGINNING
        self._steps_since = 0

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restores everything from a checkpoint.

        Raises:
            DatasetError: The checkpoint belongs to another model.
        """
        self._trainer.restore(checkpoint.variables)
        self._history.restore(checkpoint.history)
        # Copied: the arrays are views of the bytes of the file, and would keep all of them in memory.
        self._models.restore([weights.copy() for weights in checkpoint.best_weights.values()])
        self._began -= checkpoint.secs
        self.last_position = self._position = checkpoint.position

    def total_secs(self) -> float:
        """Returns the duration of the run so far, over all its processes."""
        return self._clock() - self._began

    def keep(self, position: Progress) -> None:
        """Saves the state, which is at `position`, if due.

        Raises:
            StoppedError: Training was asked to stop.
        """
        before = self._position.step if self._position.epoch == position.epoch else 0
        self._steps_since += max(0, position.step - before)
        self._position = position
        stopping = self._trainer.preemption.agree(self._stop.received, at_once=position.step == 0)
        if stopping or self._is_due(position):
            self._save(position)
        if stopping:
            self._models.write_missing()
            raise StoppedError(
                f"stopped by {sender(stopping)} at {position}; {self._promise(position)}", stopping
            )

    def _is_due(self, position: Progress) -> bool:
        waited = self._clock() - self._saved_at
        epoch_is_over = position.step == 0
        return self._every.is_over(secs=waited, steps=self._steps_since) or (
            epoch_is_over and waited >= _MIN_SHARE * self._cost
        )

    def _save(self, position: Progress) -> None:
        if position == self.last_position:
            return
        began = self._clock()
        state = self._trainer.state()
        # The loop will detect and report this. Until then, an invalid state must not replace a good one.
        if not self._trainer.is_finite(state):
            return
        checkpoint = Checkpoint(
            position=position,
            secs=began - self._began,
            history=self._history.rows,
            variables=state,
            best_weights={str(i): weights for i, weights in enumerate(self._models.best_weights)},
        )
        try:
            self._checkpoints.save(checkpoint)
        except OSError as error:
            if error.errno not in MACHINE_ERRNOS:
                raise
            logger.warning(
                "the state was not saved (%s); training goes on, and %s", error.strerror, self.what_is_kept()
            )
        else:
            self.last_position = position
            self.num_saved += 1
        self._saved_at, self._steps_since = self._clock(), 0
        self._cost = self._saved_at - began
        self.saving_secs += self._cost

    def what_is_kept(self) -> str:
        """Returns a clause about the last saved state."""
        if self.last_position == BEGINNING:
            return "no state is kept so far"
        return f"the last state that is kept is that of {self.last_position}"

    def _promise(self, position: Progress) -> str:
        if position == self.last_position:
            return "the same command goes on from there"
        if self.last_position == BEGINNING:
            return "nothing could be saved, the same command begins anew"
        return f"the same command goes on from {self.last_position}"


class NonChief:
    """Replaces `CheckpointManager` on workers other than the chief: it only stops with the others."""

    def __init__(self, trainer: Trainer, stop: StopRequest) -> None:
        """Takes the trainer, which synchronizes the workers, and the stop request of this worker."""
        self._trainer = trainer
        self._stop = stop

    def keep(self, position: Progress) -> None:
        """Synchronizes with the other workers.

        Raises:
            StoppedError: One of them was asked to stop.
        """
        if stopping := self._trainer.preemption.agree(self._stop.received, at_once=position.step == 0):
            raise StoppedError(
                f"stopped by {sender(stopping)} at {position}, with all other workers", stopping
            )
