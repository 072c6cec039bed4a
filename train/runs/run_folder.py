"""The run folder: its layout, and atomic writes, so that no incomplete file looks complete."""

import contextlib
import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from shardstream.ingest.common.atomic_io import fsync_folder
from shardstream.ingest.common.errors import MACHINE_ERRNOS, ConfigError, DatasetError, UserError
from shardstream.ingest.common.json_text import json_text
from shardstream.ingest.common.safe_files import read_regular, refuse_link
from shardstream.ingest.dataset.wrong_folder import explain_missing_run
from shardstream.train.models.registry import AUTO, BACKBONES
from shardstream.train.runs.foreign_files import refuse_foreign_files
from shardstream.train.runs.process_lock import locked_by_this_process

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """All resolved options, and the versions."""
        return self.path / "config.json"

    @property
    def best_model(self) -> Path:
        """The model of the best epoch."""
        return self.path / "best.keras"

    @property
    def last_model(self) -> Path:
        """The model at the end of training."""
        return self.path / "last.keras"

    @property
    def model_info(self) -> Path:
        """What is needed to use the models; exists only if `best.keras` does."""
        return self.path / "model.json"

    @property
    def history(self) -> Path:
        """A row for every epoch."""
        return self.path / "history.csv"

    @property
    def curves(self) -> Path:
        """A plot of loss and accuracy over the epochs."""
        return self.path / "curves.png"

    @property
    def logs(self) -> Path:
        """TensorBoard logs."""
        return self.path / "logs"

    @property
    def checkpoints(self) -> Path:
        """The states to resume from; exist only until the run is finished."""
        return self.path / "checkpoints"

    @property
    def _finished_checkpoints(self) -> Path:
        return self.path / ".checkpoints.done"

    @property
    def lock(self) -> Path:
        """Names the process that uses the folder, which holds a lock on it."""
        return self.path / ".lock"

    @property
    def diverged(self) -> Path:
        """The images of the step whose loss was NaN or infinite."""
        return self.path / "diverged.txt"

    @property
    def bad_records(self) -> Path:
        """The skipped records, if any."""
        return self.path / "bad_records.csv"

    @property
    def _results(self) -> Sequence[Path]:
        return (
            self.model_info,
            self.best_model,
            self.last_model,
            self.history,
            self.curves,
            self.diverged,
            self.bad_records,
        )

    @property
    def is_unfinished(self) -> bool:
        """Whether there is an unfinished run."""
        return self.checkpoints.is_dir()

    @property
    def is_finished(self) -> bool:
        """Whether there is a finished run."""
        return not self.is_unfinished and (self.model_info.exists() or self.best_model.exists())

    def check(self) -> None:
        """Ensures that a run overwrites only an unfinished one.

        Raises:
            ConfigError: There is a finished run, or files that are not a run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path}: a file; choose another --run")
        if self.is_finished:
            with contextlib.suppress(ConfigError, OSError), self.locked():
                pass  # Removes checkpoints left by a kill: nothing else would.
            raise ConfigError(
                f"{self.path}: holds a finished run already; choose another --run"
                f"{self._how_to_train_further()}, or remove it"
            )
        if self.path.is_dir() and not self.config.exists() and set(self.path.iterdir()) - self._begun():
            raise ConfigError(f"{self.path}: holds files that are no run; choose another --run")
        refuse_foreign_files(
            self.path,
            config=self.config,
            checkpoints=self.checkpoints,
            logs=self.logs,
            results=self._results,
        )

    def _how_to_train_further(self) -> str:
        try:
            options = json.loads(read_regular(self.config))
            model = str(json.loads(read_regular(self.model_info))["model"])
            # `auto` does not support these options.
            named = f"--model {model} " if options["model"] == AUTO else ""
            fine_tune = options.get("fine_tune") or "none"
        except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError):
            return ""
        if model in BACKBONES:  # These do not support --weights.
            return f", with {named}--fine-tune last to train its backbone too" if fine_tune == "none" else ""
        if not self.best_model.is_file():
            return ""
        return f", with {named}--weights {self.best_model} to train its model further"

    def _begun(self) -> set[Path]:
        """Returns the files that a kill may leave before there is a config.json."""
        begun = {self.lock, incomplete(self.config)}
        if self.checkpoints.is_dir() and not any(self.checkpoints.iterdir()):
            begun.add(self.checkpoints)
        return begun

    def check_has_model(self) -> None:
        """Refuses a folder without a model, before TensorFlow is loaded.

        Raises:
            DatasetError: There is no run, or it has no model.
        """
        if not self.path.exists():
            raise DatasetError(explain_missing_run(self.path))
        if not self.path.is_dir():
            raise DatasetError(f"{self.path}: a file, expected a run folder made by `shardstream-train`")
        if not self.model_info.is_file() and self.config.exists():
            raise DatasetError(f"{self.path}: this run has no model yet; it has to finish its first epoch")
        if not self.model_info.is_file():
            raise DatasetError(explain_missing_run(self.path))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder against other processes, and creates it if missing.

        It is removed again if it is still empty.

        Raises:
            ConfigError: Another process uses it, or one of our folders in it is a link.
        """
        is_new = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        for folder in (self.checkpoints, self.logs, self._finished_checkpoints):
            refuse_link(folder)
        with locked_by_this_process(self.lock):
            try:
                if self._finished_checkpoints.exists():
                    shutil.rmtree(self._finished_checkpoints)  # A kill interrupted `finish`.
                yield
            finally:
                if is_new and list(self.path.iterdir()) == [self.lock]:
                    self.lock.unlink()
                    with contextlib.suppress(OSError):  # On NFS, where a file that is open is renamed.
                        self.path.rmdir()

    def create(self, config: Mapping[str, Any]) -> None:
        """Starts a run with `config`; removes files of an unfinished one."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.logs, ignore_errors=True)
        # Remove results before checkpoints, so that a crash in between leaves the run resumable.
        for path in (*self._results, *self.checkpoints.iterdir()):
            path.unlink(missing_ok=True)
        write_json(self.config, config)

    def finish(self) -> None:
        """Removes the checkpoints once the results are on disk, which marks the run as finished."""
        for path in (self.best_model, self.last_model, self.model_info, self.history):
            _sync_file(path)
        fsync_folder(self.path)
        # Renamed first: a kill during removal would leave an unfinished run without a state to resume from.
        self.checkpoints.rename(self._finished_checkpoints)
        shutil.rmtree(self._finished_checkpoints)


class ModelFile(RunFolder):
    """A `.keras` file anywhere, with the model.json of its model in the same folder."""

    @property
    def best_model(self) -> Path:
        """The file itself."""
        return self.path

    @property
    def model_info(self) -> Path:
        """What is needed to use it."""
        return self.path.with_name("model.json")

    @property
    def config(self) -> Path:
        """The options of its training, if it is in a run folder."""
        return self.path.with_name("config.json")

    def check_has_model(self) -> None:
        """Refuses a file without metadata.

        Raises:
            DatasetError: There is no model.json in its folder.
        """
        if not self.model_info.is_file():
            raise DatasetError(
                f"{self.path}: no model.json beside it, which names the classes and the image size; "
                "copy the one of its run"
            )


def open_run(path: Path) -> RunFolder:
    """Returns the files of a run folder, or of a model that was saved elsewhere as `path`, a `.keras` file."""
    return ModelFile(path) if path.suffix == ".keras" and path.is_file() else RunFolder(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `content` to `path` atomically."""
    text = json_text(content)
    write_beside(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def incomplete(path: Path) -> Path:
    """Returns the temporary path of a file that is renamed to `path`."""
    return path.with_name(f".{path.stem}.incomplete{path.suffix}")


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary path next to `path`, with the same suffix, and renames it to `path`."""
    beside = incomplete(path)
    try:
        beside.unlink(missing_ok=True)  # It may be a planted link, which writing would follow.
        write(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_if_possible(path: Path, write: Callable[[Path], object]) -> bool:
    """Does the same as `write_beside`, or warns if the disk is full or fails; returns whether it succeeded.

    For files that will be written again: a long run is worth more than an up-to-date file.
    """
    try:
        write_beside(path, write)
    except OSError as error:
        if error.errno not in MACHINE_ERRNOS:
            raise
        logger.warning("%s: not written (%s); training goes on", path, error.strerror)
        return False
    return True


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
