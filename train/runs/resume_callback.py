"""`ResumeCallback`: a `model.fit` that is killed at any moment and resumed ends with the same weights, bit for bit."""

import contextlib
import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import keras
import tensorflow as tf

from shardstream.ingest.common.errors import MACHINE_ERRNOS, ConfigError
from shardstream.train.data.sampling import ORDER_VERSION
from shardstream.train.distributed.preemption import StopRequest
from shardstream.train.engine.progress import BEGINNING, Progress
from shardstream.train.engine.variables import assign, find_difference, values_of
from shardstream.train.runs.checkpoint import Checkpoint, Checkpoints
from shardstream.train.runs.model_state import all_variables, build_variables
from shardstream.train.runs.process_lock import locked_by_this_process
from shardstream.train.runs.resume_identity import check_identity, identity_path, read_identity
from shardstream.train.runs.run_folder import RunFolder, write_json

if TYPE_CHECKING:
    from shardstream.train.data.dataset import Dataset

logger = logging.getLogger(__name__)

# Stops `fit` within an epoch like True, but is distinguishable from the True of another callback.
_EPOCH_IS_OVER = object()
# Where batches are decoded and which of them this host reads does not change their content.
_FREE_OPTIONS = {"shard", "cache", "cache_dir", "device", "progress"}


class ResumeCallback(keras.callbacks.Callback):
    """Saves the complete state of training in a folder, and resumes from it when the same script runs again.

        resume = shardstream.ResumeCallback("runs/mine", data, batch_size=64, seed=7)
        model.fit(
            resume.batches(),
            initial_epoch=resume.initial_epoch,
            steps_per_epoch=data.steps_per_epoch(64),
            epochs=20,
            callbacks=[resume],
        )

    It saves the weights, the optimizer, the states of random layers (dropout, augmentation), which `.keras` files do
    not contain, and the step: before the first step, at the end of each epoch, every `save_every` steps, and on
    SIGTERM, after which it raises SystemExit(143). Files are written atomically and verified when read.

    Put it last in `callbacks`, so that changes by the others at the end of an epoch, such as the learning rate, are
    saved too. Not saved: metrics, which restart within the epoch, internal state of other callbacks, and generators
    that no layer owns (`tf.random`, `keras.random` without a SeedGenerator).

    With several hosts only the chief writes, and all must see the folder.
    """

    # By folder. A `fit` that ended with an exception has not released its session.
    _sessions: ClassVar[dict[Path, contextlib.ExitStack]] = {}

    def __init__(
        self,
        folder: str | os.PathLike[str],
        data: "Dataset",
        *,
        batch_size: int,
        seed: int,
        save_every: int | None = None,
        grace_secs: float = 30,
        **options: Any,
    ) -> None:
        """Reads the last checkpoint of `folder`, if there is one.

        Args:
            folder: Created if missing; must hold only files of this class.
            data: The dataset.
            batch_size: See `Dataset.train_batches`.
            seed: See `Dataset.train_batches`.
            save_every: Steps between checkpoints within an epoch; none by default.
            grace_secs: After SIGTERM, the process ends after this time even if the current step has not finished.
            options: Options of `Dataset.train_batches`, except `start_step`.

        Raises:
            ConfigError: The folder holds something else, or was started with other data or options.
            DatasetError: The split has less than one batch, or all checkpoints in the folder are corrupt.
        """
        super().__init__()
        if save_every is not None and save_every < 1:
            raise ConfigError(f"save_every must be a positive number of steps, got {save_every}")
        if not grace_secs > 0:
            raise ConfigError(f"grace_secs must be positive, got {grace_secs}")
        if "start_step" in options:
            raise ConfigError("ResumeCallback decides start_step")
        self._folder = RunFolder(Path(folder).absolute())
        self._data, self._batch_size, self._seed, self._options = data, batch_size, seed, options
        self._save_every = save_every
        self._grace_secs = grace_secs
        split = options.get("split", "train")
        self._steps_per_epoch = data.steps_per_epoch(batch_size, split=split)
        self._identity = {
            "batch_size": batch_size,
            "seed": seed,
            "split": split,
            "image_size": options.get("image_size") or data.image_size,
            "max_bad_records": options.get("max_bad_records", 0),
            **{name: value for name, value in options.items() if name not in _FREE_OPTIONS},
            "order_version": ORDER_VERSION,
            "data": data.fingerprint[:16],
        }
        self._checkpoints = Checkpoints(
            self._folder.checkpoints, hint="remove the folder to begin the run anew"
        )
        self._is_training = False
        self._load()

    @property
    def initial_epoch(self) -> int:
        """Epoch in which training resumes, for `fit`."""
        self._load_after_failure()
        return self._position.epoch

    @property
    def start_step(self) -> int:
        """Step at which training resumes, counted from the start of training."""
        self._load_after_failure()
        return self._position.epoch * self._steps_per_epoch + self._position.step

    def batches(self) -> tf.data.Dataset:
        """Returns endless batches from the step at which training resumes.

        Raises:
            ConfigError, DatasetError, LimitError: As `Dataset.train_batches`.
        """
        return self._data.train_batches(
            self._batch_size, seed=self._seed, start_step=self.start_step, **self._options
        )

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Restores the state, or saves it if training starts."""
        self._check_steps()
        self._begin_session()
        build_variables(cast(keras.Model, self.model), self._identity["image_size"])
        self._is_training = True
        self._steps_since_save = 0
        if self._restored:
            self._restore(self._restored)
        elif self._position == BEGINNING:
            self._save(BEGINNING)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Checks that this epoch follows the saved ones."""
        if epoch != self._position.epoch:
            raise ConfigError(
                f"epoch {self._position.epoch} comes next, got {epoch}; use fit(initial_epoch=resume.initial_epoch)"
            )
        self._first_step = self._position.step

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Restores a state within an epoch again, as other callbacks have seen the start of that epoch twice."""
        if self._restored and self._position.step:
            self._restore(self._restored)
        self._restored = None

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Saves the state if due, and ends the epoch after its last step."""
        step = self._first_step + batch + 1
        self._steps_since_save += step - self._position.step
        is_last = step >= self._steps_per_epoch
        self._position = Progress(self._position.epoch, step)
        if self._stop.received:
            self._save_and_exit()
        elif is_last:
            # A resumed epoch is shorter than Keras assumes.
            model = cast(Any, self.model)
            model.stop_training = model.stop_training or (self._first_step > 0 and _EPOCH_IS_OVER)
        elif self._save_every and self._steps_since_save >= self._save_every:
            self._save(self._position)

    def on_test_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Handles SIGTERM: the interrupted validation is not repeated."""
        if self._is_training and self._stop.received:
            self._save_and_exit()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Saves the state, and lets `fit` continue."""
        model = cast(Any, self.model)
        if model.stop_training is _EPOCH_IS_OVER:
            model.stop_training = False
        self._position = Progress(epoch + 1)
        if self._stop.received:
            self._save_and_exit()
        self._save(self._position)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Releases the folder."""
        self._is_training = False
        self._restored = None
        self._end_session()

    def _check_steps(self) -> None:
        expected = self._steps_per_epoch
        if (steps := (self.params or {}).get("steps", expected)) != expected:
            raise ConfigError(
                f"steps_per_epoch must be data.steps_per_epoch({self._batch_size}) = {expected}, got {steps}"
            )
        # Keras runs complete executions, beyond the end of the epoch.
        at_once = cast(Any, self.model).steps_per_execution
        if expected % at_once or self._position.step % at_once:
            raise ConfigError(
                f"steps_per_execution {at_once} must divide the {expected} steps of an epoch and the "
                f"{self._position.step} that are done"
            )

    def _load(self) -> None:
        saved = read_identity(self._folder)
        self._found = self._checkpoints.paths()
        self._restored = self._checkpoints.latest() if saved else None
        if self._restored:
            check_identity(self._folder, saved, self._identity)
        self._position = self._restored.position if self._restored else BEGINNING

    def _load_after_failure(self) -> None:
        if self._is_training:  # An exception left `fit`: the model is at an unknown step.
            self._is_training = False
            self._load()

    def _begin_session(self) -> None:
        """Locks the folder and installs the SIGTERM handler."""
        self._end_session()
        with contextlib.ExitStack() as session:
            if self._is_chief:
                self._folder.checkpoints.mkdir(parents=True, exist_ok=True)
                session.enter_context(locked_by_this_process(self._folder.lock))
                if self._checkpoints.paths() != self._found:
                    raise ConfigError(f"{self._folder.path}: another process has trained on; start again")
                self._checkpoints.remove_incomplete()
                write_json(identity_path(self._folder), self._identity)
            stop = StopRequest(
                self._grace_secs, signals=[signal.SIGTERM], program="shardstream.ResumeCallback"
            )
            stop.what_is_kept = self._what_is_kept
            self._stop = session.enter_context(stop)
            self._sessions[self._folder.path] = session.pop_all()

    def _end_session(self) -> None:
        if session := self._sessions.pop(self._folder.path, None):
            session.close()

    @property
    def _is_chief(self) -> bool:
        return cast(Any, self.model).distribute_strategy.extended.should_checkpoint

    def _restore(self, checkpoint: Checkpoint) -> None:
        variables = all_variables(cast(keras.Model, self.model))
        if difference := find_difference(variables, checkpoint.variables):
            raise ConfigError(f"{self._folder.path}: saved with another model or optimizer: {difference}")
        assign(variables, checkpoint.variables)

    def _save(self, position: Progress) -> bool:
        """Returns whether the state was saved; a full disk does not end a training of days."""
        self._steps_since_save = 0
        if not self._is_chief:
            return True
        if position.step == self._steps_per_epoch:
            position = Progress(position.epoch + 1)
        checkpoint = Checkpoint(
            position=position,
            secs=0.0,
            history=[],
            variables=values_of(all_variables(cast(keras.Model, self.model))),
            best_weights={},
        )
        try:
            self._checkpoints.save(checkpoint)
        except OSError as error:
            if error.errno not in MACHINE_ERRNOS:
                raise
            logger.warning(
                "%s: the state of %s was not saved: %s", self._folder.path, position, error.strerror
            )
            return False
        self._found = self._checkpoints.paths()
        return True

    def _what_is_kept(self) -> str:
        return "the last checkpoint is kept" if self._checkpoints.paths() else "nothing is kept so far"

    def _save_and_exit(self) -> None:
        is_saved = self._save(self._position)
        promise = "the same script goes on from there" if is_saved else self._what_is_kept()
        logger.warning("%s: stopped by SIGTERM at %s; %s", self._folder.path, self._position, promise)
        self._end_session()
        raise SystemExit(128 + signal.SIGTERM)
