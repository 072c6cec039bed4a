"""The run folder: what is where, and how it is written so that nothing half-written looks whole."""

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
from shardstream.train.models.registry import BACKBONES
from shardstream.train.runs.foreign_files import refuse_foreign_files
from shardstream.train.runs.process_lock import locked_by_this_process

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """All options as they were used, and the versions."""
        return self.path / "config.json"

    @property
    def best_model(self) -> Path:
        """The model of the best epoch."""
        return self.path / "best.keras"

    @property
    def last_model(self) -> Path:
        """The model as training left it."""
        return self.path / "last.keras"

    @property
    def model_info(self) -> Path:
        """What is needed to use the models; there only if `best.keras` is."""
        return self.path / "model.json"

    @property
    def history(self) -> Path:
        """A row for every epoch."""
        return self.path / "history.csv"

    @property
    def curves(self) -> Path:
        """Loss and accuracy over the epochs, drawn."""
        return self.path / "curves.png"

    @property
    def logs(self) -> Path:
        """TensorBoard's."""
        return self.path / "logs"

    @property
    def checkpoints(self) -> Path:
        """The states to go on from; there only until the run is finished."""
        return self.path / "checkpoints"

    @property
    def _finished_checkpoints(self) -> Path:
        return self.path / ".checkpoints.done"

    @property
    def lock(self) -> Path:
        """Says which process is at work, and is locked while it is."""
        return self.path / ".lock"

    @property
    def diverged(self) -> Path:
        """The images of the step whose loss was NaN or infinite."""
        return self.path / "diverged.txt"

    @property
    def bad_records(self) -> Path:
        """The records that are left out, if any are."""
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
        """Whether there is a run that did not come to its end."""
        return self.checkpoints.is_dir()

    @property
    def is_finished(self) -> bool:
        """Whether there is a run that did."""
        return not self.is_unfinished and (self.model_info.exists() or self.best_model.exists())

    def check(self) -> None:
        """Ensures that a run overwrites nothing but an unfinished one.

        Raises:
            ConfigError: There is a finished run, or something that is none.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path}: a file; choose another --run")
        if self.is_finished:
            with contextlib.suppress(ConfigError, OSError), self.locked():
                pass  # What a kill left of its checkpoints goes: nobody else comes by here.
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
            model, fine_tune = options["model"], options.get("fine_tune") or "none"
        except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError):
            return ""
        if model in BACKBONES:  # For which --weights is refused.
            return ", with --fine-tune last to train its backbone too" if fine_tune == "none" else ""
        if not self.best_model.is_file():
            return ""
        return f", with --weights {self.best_model} to train its model further"

    def _begun(self) -> set[Path]:
        """Returns what a kill leaves before there is a config.json."""
        begun = {self.lock, incomplete(self.config)}
        if self.checkpoints.is_dir() and not any(self.checkpoints.iterdir()):
            begun.add(self.checkpoints)
        return begun

    def check_has_model(self) -> None:
        """Refuses a folder without a model, before TensorFlow's seconds.

        Raises:
            DatasetError: There is no run, or none that has a model.
        """
        if not self.path.is_dir():
            raise DatasetError(
                f"{self.path}: no such run folder; make one with `shardstream-train DATA --run {self.path}`"
            )
        if not self.model_info.is_file() and self.config.exists():
            raise DatasetError(f"{self.path}: this run has no model yet; it has to finish its first epoch")
        if not self.model_info.is_file():
            raise DatasetError(explain_missing_run(self.path))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out of the folder, which is made if there is none.

        It is taken away again if nothing was put into it.

        Raises:
            ConfigError: Another process is at work there, or one of our folders in it is a link.
        """
        is_new = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        for folder in (self.checkpoints, self.logs, self._finished_checkpoints):
            refuse_link(folder)
        try:
            with locked_by_this_process(self.lock):
                if self._finished_checkpoints.exists():
                    shutil.rmtree(self._finished_checkpoints)  # A kill came before `finish` had done so.
                yield
        finally:
            if is_new and list(self.path.iterdir()) == [self.lock]:
                shutil.rmtree(self.path)

    def create(self, config: Mapping[str, Any]) -> None:
        """Begins a run with `config`; what an unfinished one left is removed."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.logs, ignore_errors=True)
        # What makes a run look finished goes before what makes it unfinished.
        for path in (*self._results, *self.checkpoints.iterdir()):
            path.unlink(missing_ok=True)
        write_json(self.config, config)

    def finish(self) -> None:
        """Removes the checkpoints once the results are on the disk, and with them the sign that there is more to do."""
        for path in (self.best_model, self.last_model, self.model_info, self.history):
            _sync_file(path)
        fsync_folder(self.path)
        # A kill amid their removal would leave an unfinished run without a state to go on from.
        self.checkpoints.rename(self._finished_checkpoints)
        shutil.rmtree(self._finished_checkpoints)


class ModelFile(RunFolder):
    """A `.keras` file anywhere, with the model.json of its model beside it."""

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
        """The options of its training, if it lies in a run folder."""
        return self.path.with_name("config.json")

    def check_has_model(self) -> None:
        """Refuses a file of which nothing is known.

        Raises:
            DatasetError: There is no model.json beside it.
        """
        if not self.model_info.is_file():
            raise DatasetError(
                f"{self.path}: no model.json beside it, which names the classes and the image size; "
                "copy that of a run folder and put its own in"
            )


def open_run(path: Path) -> RunFolder:
    """Returns the files of a run folder, or of a model that was saved elsewhere as `path`, a `.keras` file."""
    return ModelFile(path) if path.suffix == ".keras" and path.is_file() else RunFolder(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `content` to `path`, whole or not at all."""
    text = json_text(content)
    write_beside(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def incomplete(path: Path) -> Path:
    """Returns where a file is written that is renamed to `path`."""
    return path.with_name(f".{path.stem}.incomplete{path.suffix}")


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` make a file beside `path`, with the same suffix, and renames it to `path`."""
    beside = incomplete(path)
    try:
        beside.unlink(missing_ok=True)  # It may be a link that somebody planted: to write would follow it.
        write(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_if_possible(path: Path, write: Callable[[Path], object]) -> bool:
    """Does what `write_beside` does, or warns where the disk is full or fails; returns whether it was done.

    For what will be written again: a long run is worth more than a file of it that is late.
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
