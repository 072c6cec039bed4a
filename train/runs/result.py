"""The result of a run."""

import dataclasses
import json
import statistics
from pathlib import Path

from shardstream.train.distributed.workers import Workers
from shardstream.train.runs.callbacks import History
from shardstream.train.runs.checkpoint_manager import CheckpointManager
from shardstream.train.runs.saved_model import ModelInfo


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """The result of a run.

    Attributes:
        run: The run folder.
        model: Model of best.keras: the name it was built by.
        temperature: Divisor of the logits of best.keras.
        best_epoch: The epoch of best.keras; the first is 1.
        val_loss: Validation loss of best.keras, calibrated if there were enough images.
        val_accuracy: Validation accuracy of best.keras.
        epochs: Number of epochs trained.
        total_secs: From reading the metadata to the last file, over all processes of the run.
        epoch_secs: The median duration of an epoch, validation not included.
        images_per_sec: The median over the epochs, in training.
        images_per_sec_per_core: The same per core that the run may use.
        input_wait: The fraction of the training time spent waiting for input, the median over the epochs.
        num_parameters: Parameters of the model, including those not trained.
        num_checkpoints: Number of checkpoints that the last process saved.
        checkpoint_secs: Time that took.
    """

    run: Path
    model: str
    best_epoch: int
    temperature: float
    val_loss: float
    val_accuracy: float
    epochs: int
    total_secs: float
    epoch_secs: float
    images_per_sec: float
    images_per_sec_per_core: float
    input_wait: float
    num_parameters: int
    num_checkpoints: int
    checkpoint_secs: float


def broadcast_result(workers: Workers, result: TrainResult) -> None:
    """Sends the result to the other workers, which wait in `receive_result` for the chief to finish."""
    workers.broadcast(json.dumps(dataclasses.asdict(result) | {"run": str(result.run)}).encode())


def receive_result(workers: Workers) -> TrainResult:
    """Returns what the chief sends in `broadcast_result`."""
    content = json.loads(workers.broadcast(b""))
    return TrainResult(**content | {"run": Path(content["run"])})


def summarize(
    run: Path, history: History, saver: CheckpointManager, info: ModelInfo, *, val_loss: float
) -> TrainResult:
    """Returns the result of a finished run."""
    best = history.best()
    # Epoch 0 is the head that fine-tuning starts from, not an epoch of training.
    trained = [row for row in history.rows if row["epoch"]] or history.rows
    # The first epoch includes tracing: the median excludes it if there are others.
    return TrainResult(
        run=run,
        model=info.model,
        temperature=info.temperature,
        best_epoch=int(best["epoch"]),
        val_loss=val_loss,
        val_accuracy=best["val_accuracy"],
        epochs=int(history.rows[-1]["epoch"]),
        total_secs=saver.total_secs(),
        epoch_secs=statistics.median(row["train_secs"] for row in trained),
        images_per_sec=statistics.median(row["images_per_sec"] for row in trained),
        images_per_sec_per_core=statistics.median(row["images_per_sec_per_core"] for row in trained),
        input_wait=statistics.median(row["input_wait"] for row in trained),
        num_parameters=info.num_parameters,
        num_checkpoints=saver.num_saved,
        checkpoint_secs=saver.saving_secs,
    )
