"""Status of a run folder, whether a process is using it or not."""

import csv
import dataclasses
import json
import time
from pathlib import Path
from typing import Literal

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.common.safe_files import parse_errors, read_regular
from shardstream.ingest.dataset.wrong_folder import explain_missing_run
from shardstream.train.engine.progress import BEGINNING
from shardstream.train.runs.best_epoch import FORMER_BEST_BY, best_row
from shardstream.train.runs.checkpoint import Checkpoint, Checkpoints
from shardstream.train.runs.process_lock import Process, locking_process
from shardstream.train.runs.run_folder import RunFolder

_MAX_COUNT = 1 << 53


@dataclasses.dataclass(frozen=True, slots=True)
class Rate:
    """Training speed of an epoch.

    Attributes:
        images_per_sec: Rate in training, validation not included.
        images_per_sec_per_core: The same per core that the run may use.
        input_wait: The fraction of the time spent waiting for input.
    """

    images_per_sec: float
    images_per_sec_per_core: float
    input_wait: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RunStatus:
    """Status of a run.

    Attributes:
        run: The run folder.
        condition: Whether a process is running it, it can be resumed, or it is finished.
        process: The process, if one is running it.
        epochs: Total number of epochs.
        steps_per_epoch: Steps per epoch.
        epoch: Completed epochs in the state to resume from.
        step: Completed steps of the epoch after them.
        checkpoint_age_secs: Age of that state; None before the first checkpoint and after the end.
        best_epoch: The best epoch so far; None, like the following, before the first is complete.
        best_val_loss: Validation loss of that epoch.
        best_val_accuracy: Validation accuracy of that epoch.
        rate: Rate of the last completed epoch; None without one.
        secs_left: Estimated remaining time at the pace so far; None if unknown.
    """

    run: Path
    condition: Literal["running", "stopped", "finished"]
    process: Process | None
    epochs: int
    steps_per_epoch: int
    epoch: int
    step: int
    checkpoint_age_secs: float | None
    best_epoch: int | None
    best_val_loss: float | None
    best_val_accuracy: float | None
    rate: Rate | None
    secs_left: float | None


def read_status(run: Path) -> RunStatus:
    """Returns the status of the run in the folder `run`.

    Raises:
        DatasetError: There is no run, or its files are corrupt.
    """
    folder = RunFolder(run)
    process = locking_process(folder.lock)
    if not folder.config.is_file() and process:
        raise DatasetError(
            f"{run}: process {process.pid} on {process.host} starts a run there; ask again in a moment"
        )
    if not folder.config.is_file():
        raise DatasetError(explain_missing_run(run))
    remedy = "train again into another run folder"
    with parse_errors(folder.config, remedy):
        config = json.loads(read_regular(folder.config))
        epochs, steps_per_epoch = int(config["epochs"]), int(config["steps_per_epoch"])
        # A classifier on frozen features has no epochs.
        if not (0 <= epochs < _MAX_COUNT and 0 < steps_per_epoch < _MAX_COUNT):
            raise ValueError("epochs and steps_per_epoch have to be numbers from 0 and 1 on")
    with parse_errors(folder.history, remedy):
        rows = _read_history(folder.history)
        if any(not {"epoch", "val_loss", "val_accuracy"} <= row.keys() for row in rows):
            raise ValueError("a row without epoch, val_loss or val_accuracy")
        if any(not 0 <= row["epoch"] < _MAX_COUNT for row in rows):
            raise ValueError("the number of an epoch is none")
    checkpoints = Checkpoints(folder.checkpoints)
    checkpoint = checkpoints.latest()
    position = checkpoint.position if checkpoint else BEGINNING
    best = best_row(rows, config.get("best_by", FORMER_BEST_BY)) if rows else None
    return RunStatus(
        run=run,
        condition="running" if process else "finished" if folder.is_finished else "stopped",
        process=process,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        epoch=int(rows[-1]["epoch"]) if folder.is_finished and rows else position.epoch,
        step=position.step,
        checkpoint_age_secs=checkpoints.age_secs(time.time()) if checkpoint else None,
        best_epoch=int(best["epoch"]) if best else None,
        best_val_loss=best["val_loss"] if best else None,
        best_val_accuracy=best["val_accuracy"] if best else None,
        rate=_rate(rows[-1]) if rows else None,
        secs_left=0.0 if folder.is_finished else _secs_left(checkpoint, epochs, steps_per_epoch),
    )


def _read_history(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    # nan: the column was added after that epoch.
    lines = read_regular(path).decode("utf-8").splitlines()
    return [
        {name: float(value) for name, value in row.items() if value != "nan"} for row in csv.DictReader(lines)
    ]


def _rate(row: dict[str, float]) -> Rate | None:
    if not row["epoch"]:
        return None  # A head on features: there was no training in steps.
    names = [field.name for field in dataclasses.fields(Rate)]
    return Rate(*(row[name] for name in names)) if set(names) <= set(row) else None


def _secs_left(checkpoint: Checkpoint | None, epochs: int, steps_per_epoch: int) -> float | None:
    if checkpoint is None:
        return None
    done = checkpoint.position.epoch + checkpoint.position.step / steps_per_epoch
    if not 0 < done <= epochs:
        return None
    return checkpoint.secs / done * (epochs - done)
