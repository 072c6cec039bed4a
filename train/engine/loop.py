"""The training steps and the loop around them, for one device and for several alike.

Not Keras's `fit`: it cannot be started in the middle of an epoch, and under a strategy it starts the input
twice and runs steps that are not whole. What continues a run is `Trainer.state()` and a `Progress`.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from shardstream.ingest.common.cpu_limits import usable_cores
from shardstream.ingest.common.errors import UserError
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.data.corruption import find_damage
from shardstream.train.data.input_pipeline import ExampleSource, make_train_batches, record_names
from shardstream.train.data.share import steps_per_epoch
from shardstream.train.engine.evaluation import evaluate
from shardstream.train.engine.meter import EpochMeter
from shardstream.train.engine.progress import BEGINNING, Progress
from shardstream.train.engine.trainer import Trainer

# Reading a figure waits for the device. Between readings it runs ahead of Python, which a GPU needs.
_STEPS_BETWEEN_READINGS = 50
# In a sentence; all of them are in the error.
_NAMED_RECORDS = 3


class DivergedError(UserError):
    """The loss is no number any more.

    Attributes:
        records: The file names of the pictures in the batch of the step where that was.
    """

    exit_code = 1

    def __init__(self, sentence: str, records: Sequence[str]) -> None:
        """Takes the sentence for the user."""
        super().__init__(sentence)
        self.records = records


class Loop:
    """Trains a model epoch by epoch and tells Keras callbacks about it."""

    def __init__(
        self,
        steps: Trainer,
        *,
        info: DatasetInfo,
        train: ExampleSource,
        validation: ExampleSource,
        epochs: int,
        batch_size: int,
        seed: int,
        callbacks: Sequence[keras.callbacks.Callback],
        keep: Callable[[Progress], None] = lambda _: None,
        steps_per_execution: int = 1,
    ) -> None:
        """Takes Keras callbacks as `fit` does.

        Args:
            steps: The model.
            info: The dataset, for the names in errors.
            train: The split to learn from; of several workers, this one's share of it.
            validation: The split to evaluate on after each epoch, in the same way.
            epochs: How many there are in all.
            batch_size: That of all replicas together.
            seed: Of the order of the examples.
            callbacks: What happens at the end of an epoch.
            keep: Called between any two steps, validation's too, and after each epoch's callbacks, with the
                position that the state of `steps` is at. A run can go on from each.
            steps_per_execution: How many steps of training make one call, between which nothing else happens.
        """
        self._steps = steps
        self._info = info
        self._train = train
        self._validation = validation
        self._epochs = epochs
        self._batch_size = batch_size
        self._seed = seed
        self._keep = keep
        self._steps_per_execution = steps_per_execution
        self._num_steps = steps_per_epoch(info.split(train.split.name), batch_size, steps.num_workers)
        self._callbacks = keras.callbacks.CallbackList(
            list(callbacks), model=steps.model, epochs=epochs, steps=self._num_steps, verbose=0
        )
        self._steps_between_readings = 1 if _any_reads_batches(callbacks) else _STEPS_BETWEEN_READINGS

    def run(self, start: Progress = BEGINNING) -> None:
        """Trains from `start` to the last epoch, or until a callback sets `model.stop_training`.

        Raises:
            DivergedError: The loss became infinite or no number.
            DatasetError: A shard is missing, cut or damaged.
        """
        model = self._steps.model
        model.stop_training = False
        logs: dict[str, float] = {}
        self._callbacks.on_train_begin()
        for epoch in range(start.epoch, self._epochs):
            self._steps.begin_epoch(epoch)
            self._callbacks.on_epoch_begin(epoch)
            logs, trained = self._train_epoch(start if epoch == start.epoch else Progress(epoch))
            logs |= self._validate(trained)
            self._callbacks.on_epoch_end(epoch, logs)
            self._keep(Progress(self._epochs if model.stop_training else epoch + 1))
            if model.stop_training:
                break
        self._callbacks.on_train_end(logs)

    def _train_epoch(self, start: Progress) -> tuple[dict[str, float], Progress]:
        meter = EpochMeter(start)
        epoch, step = start.epoch, start.step
        if step == 0:
            self._steps.trained.reset()
        batches = meter.waited_for(self._batches(epoch, step))
        while group := list(itertools.islice(batches, self._steps_per_execution)):
            self._callbacks.on_train_batch_begin(step)
            self._steps.train(*group)
            step += len(group)
            self._callbacks.on_train_batch_end(step - 1, self._reading(epoch, step, len(group)))
            self._keep(Progress(epoch, step, meter.secs(), meter.waiting_secs))
        self._check_count(step * self._batch_size)
        self._train.complete()
        secs = meter.secs()
        rate = step * self._batch_size / secs
        logs = {
            **self._finite(epoch, self._steps.trained.means()),
            "learning_rate": self._steps.learning_rate(),
            "images_per_sec": rate,
            "images_per_sec_per_core": rate / usable_cores(),
            "input_wait": meter.waiting_secs / secs,
            "train_secs": secs,
        }
        return logs, Progress(epoch, step, secs, meter.waiting_secs)

    def _batches(self, epoch: int, start_step: int) -> Any:
        parts = make_train_batches(
            self._train,
            seed=self._seed,
            epoch=epoch,
            start_step=start_step,
            batch_size=self._batch_size // self._steps.num_workers,
            num_replicas=self._steps.num_local_replicas,
            num_steps=self._num_steps,
        )
        return map(self._train.on_devices, self._steps.distributed(parts))

    def _reading(self, epoch: int, step: int, num_new: int) -> dict[str, float] | None:
        if step % self._steps_between_readings >= num_new:
            return None
        return self._finite(epoch, self._steps.trained.means())

    def _check_count(self, expected: int) -> None:
        seen = self._steps.trained.num_seen()
        if seen != expected or expected != self._num_steps * self._batch_size:
            raise find_damage(self._info, self._train.split.name)

    def _validate(self, position: Progress) -> dict[str, float]:
        result = evaluate(
            self._steps,
            self._info,
            self._validation,
            batch_size=self._batch_size,
            after_step=lambda: self._keep(position),
        )
        logs = {"val_loss": result.loss, "val_accuracy": result.accuracy}
        return self._finite(position.epoch, logs)

    def _finite(self, epoch: int, logs: Mapping[str, float]) -> dict[str, float]:
        if all(math.isfinite(value) for value in logs.values()):
            return dict(logs)
        raise self._diverged(epoch)

    def _diverged(self, epoch: int) -> DivergedError:
        """Returns the error that names the first step of the epoch under way whose loss was no number.

        If there is none, it was the last step that spoiled the weights.
        """
        step = min(self._steps.trained.num_finite_steps() + 1, self._num_steps)
        local_batch_size = self._batch_size // self._steps.num_workers
        records = record_names(
            self._train,
            self._info,
            seed=self._seed,
            epoch=epoch,
            start=(step - 1) * local_batch_size,
            count=local_batch_size,
        )
        named = ", ".join(records[:_NAMED_RECORDS]) + ", ..." * (len(records) > _NAMED_RECORDS)
        return DivergedError(
            f"the loss is no number any more at step {step} of epoch {epoch + 1}, with the pictures {named}; "
            f"try a lower --learning-rate (here it was {self._steps.learning_rate():.2g})",
            records,
        )


def _any_reads_batches(callbacks: Sequence[keras.callbacks.Callback]) -> bool:
    """Returns whether a callback that is not known to do without looks at every step's loss."""
    base = keras.callbacks.Callback
    return any(
        type(callback).on_train_batch_end is not base.on_train_batch_end
        or type(callback).on_batch_end is not base.on_batch_end
        for callback in callbacks
        if not getattr(callback, "reads_batches_rarely", False)
    )
