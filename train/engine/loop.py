"""The training steps and the loop around them, for a single device and several alike.

Not Keras's `fit`: it cannot start in the middle of an epoch, and under a strategy it starts the input twice and runs
incomplete steps. To resume, a run needs `Trainer.state()` and a `Progress`.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from shardstream.ingest.common.cpu_limits import usable_cores
from shardstream.ingest.common.errors import DatasetError, UserError
from shardstream.train.data.corruption import naming_corruption
from shardstream.train.engine.evaluation import evaluate
from shardstream.train.engine.meter import EpochMeter
from shardstream.train.engine.progress import BEGINNING, Progress
from shardstream.train.engine.trainer import Trainer
from shardstream.train.engine.training_data import TrainingData

# Reading a metric waits for the device. Between readings Python runs ahead of the device, which keeps a GPU busy.
_STEPS_BETWEEN_READINGS = 50
# Number of records in the message; the error has all of them.
_NAMED_RECORDS = 3


class DivergedError(UserError):
    """The loss is NaN or infinite.

    Attributes:
        records: Source files of the examples of that step.
    """

    exit_code = 1

    def __init__(self, sentence: str, records: Sequence[str]) -> None:
        """Takes the sentence for the user."""
        super().__init__(sentence)
        self.records = records


class Loop:
    """Trains a model epoch by epoch and calls Keras callbacks."""

    def __init__(
        self,
        trainer: Trainer,
        data: TrainingData,
        *,
        epochs: int,
        callbacks: Sequence[keras.callbacks.Callback],
        keep: Callable[[Progress], None] = lambda _: None,
        steps_per_execution: int = 1,
    ) -> None:
        """Takes Keras callbacks as `fit` does.

        Args:
            trainer: Trainer of the model.
            data: Data to train and evaluate on.
            epochs: Total number of epochs.
            callbacks: Called at the end of an epoch, among others.
            keep: Called between any two steps, of validation too, and after each epoch's callbacks, with the progress
                that matches the state of `trainer`. A run can resume from each.
            steps_per_execution: Training steps per call; nothing else happens in between.
        """
        self._trainer = trainer
        self._data = data
        self._epochs = epochs
        self._keep = keep
        self._steps_per_execution = steps_per_execution
        self._num_steps = data.steps_per_epoch
        self._callbacks = keras.callbacks.CallbackList(
            list(callbacks), model=trainer.model, epochs=epochs, steps=self._num_steps, verbose=0
        )
        self._steps_between_readings = 1 if _any_reads_batches(callbacks) else _STEPS_BETWEEN_READINGS

    def run(self, start: Progress = BEGINNING) -> None:
        """Trains from `start` to the last epoch, or until a callback sets `model.stop_training`.

        Raises:
            DivergedError: The loss became infinite or NaN.
            DatasetError: A shard is missing, truncated or corrupt.
        """
        model = self._trainer.model
        model.stop_training = False
        logs: dict[str, float] = {}
        # One iterator for the entire run: it prefetches across the end of an epoch.
        batches = self._batches(start)
        self._callbacks.on_train_begin()
        for epoch in range(start.epoch, self._epochs):
            self._trainer.begin_epoch(epoch)
            self._callbacks.on_epoch_begin(epoch)
            logs, trained = self._train_epoch(batches, start if epoch == start.epoch else Progress(epoch))
            logs |= self._validate(trained)
            self._callbacks.on_epoch_end(epoch, logs)
            self._keep(Progress(self._epochs if model.stop_training else epoch + 1))
            if model.stop_training:
                break
        self._callbacks.on_train_end(logs)

    def _batches(self, start: Progress) -> Iterator[Any]:
        first_step = start.epoch * self._num_steps + start.step
        return self._trainer.distributed(naming_corruption(self._data.train_batches(first_step)))

    def _train_epoch(self, batches: Iterator[Any], start: Progress) -> tuple[dict[str, float], Progress]:
        meter = EpochMeter(start)
        epoch, step = start.epoch, start.step
        if step == 0:
            self._trainer.trained.reset()
        rest = meter.waited_for(itertools.islice(batches, self._num_steps - step))
        while group := list(itertools.islice(rest, self._steps_per_execution)):
            self._callbacks.on_train_batch_begin(step)
            self._trainer.train(*group)
            step += len(group)
            self._callbacks.on_train_batch_end(step - 1, self._reading(epoch, step, len(group)))
            self._keep(Progress(epoch, step, meter.secs(), meter.waiting_secs))
        self._check_count(step)
        secs = meter.secs()
        rate = step * self._data.batch_size / secs
        logs = {
            **self._finite(epoch, self._trainer.trained.means()),
            "learning_rate": self._trainer.learning_rate(),
            "images_per_sec": rate,
            "images_per_sec_per_core": rate / usable_cores(),
            "input_wait": meter.waiting_secs / secs,
            "train_secs": secs,
        }
        return logs, Progress(epoch, step, secs, meter.waiting_secs)

    def _reading(self, epoch: int, step: int, num_new: int) -> dict[str, float] | None:
        if step % self._steps_between_readings >= num_new:
            return None
        return self._finite(epoch, self._trainer.trained.means())

    def _check_count(self, num_steps: int) -> None:
        seen, expected = self._trainer.trained.num_seen(), self._num_steps * self._data.batch_size
        if seen != expected or num_steps != self._num_steps:
            raise DatasetError(f"an epoch trained on {seen:,} examples, expected {expected:,}")

    def _validate(self, progress: Progress) -> dict[str, float]:
        result = evaluate(
            self._trainer,
            self._data.validation_batches,
            num_examples=self._data.num_validation_examples,
            after_step=lambda: self._keep(progress),
        )
        logs = {"val_loss": result.loss, "val_accuracy": result.accuracy}
        return self._finite(progress.epoch, logs)

    def _finite(self, epoch: int, logs: Mapping[str, float]) -> dict[str, float]:
        if all(math.isfinite(value) for value in logs.values()):
            return dict(logs)
        raise self._diverged(epoch)

    def _diverged(self, epoch: int) -> DivergedError:
        """Returns the error that names the first step of the current epoch whose loss was NaN.

        If there is none, the last step made the weights invalid.
        """
        step = min(self._trainer.trained.num_finite_steps() + 1, self._num_steps)
        records = self._data.file_names(epoch * self._num_steps + step - 1)
        named = ", ".join(records[:_NAMED_RECORDS]) + ", ..." * (len(records) > _NAMED_RECORDS)
        return DivergedError(
            f"NaN loss at step {step} of epoch {epoch + 1}, with the images {named}; "
            f"try a lower --learning-rate (here it was {self._trainer.learning_rate():.2g})",
            records,
        )


def _any_reads_batches(callbacks: Sequence[keras.callbacks.Callback]) -> bool:
    """Returns whether any callback needs the loss of every step, as callbacks do unless they declare otherwise."""
    base = keras.callbacks.Callback
    return any(
        type(callback).on_train_batch_end is not base.on_train_batch_end
        or type(callback).on_batch_end is not base.on_batch_end
        for callback in callbacks
        if not getattr(callback, "reads_batches_rarely", False)
    )
