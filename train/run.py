"""A training run from its options to its run folder."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import keras

from shardstream.ingest.common.durations import parse_interval, parse_secs
from shardstream.ingest.common.errors import machine_errors
from shardstream.ingest.dataset.class_counts import missing_class_notes
from shardstream.train.calibration import calibrate
from shardstream.train.config import TrainConfig
from shardstream.train.decoding import make_data
from shardstream.train.distributed.cluster import find_cluster
from shardstream.train.distributed.preemption import StopRequest
from shardstream.train.distributed.workers import Workers, join_workers
from shardstream.train.engine.callbacks import InputWarning, ProgressBar, ProgressLines
from shardstream.train.engine.early_stopping import EarlyStopping
from shardstream.train.engine.loop import DivergedError, Loop
from shardstream.train.engine.progress import BEGINNING, Progress
from shardstream.train.engine.trainer import Trainer
from shardstream.train.engine.training_data import TrainingData
from shardstream.train.pretrained_head import fit_head, help_fit_head
from shardstream.train.provenance import make_model_info
from shardstream.train.resolve import SPLITS, ResolvedConfig, make_model, make_writer, prepare
from shardstream.train.runs.best_epoch import BEST_BY
from shardstream.train.runs.broadcast import broadcast_run, receive_run
from shardstream.train.runs.callbacks import Curves, History, ModelSaver
from shardstream.train.runs.checkpoint import Checkpoints
from shardstream.train.runs.checkpoint_manager import CheckpointManager, NonChief
from shardstream.train.runs.earlier_weights import begin_with
from shardstream.train.runs.result import TrainResult, broadcast_result, receive_result, summarize
from shardstream.train.runs.resume import find_resumable
from shardstream.train.runs.run_folder import RunFolder, write_if_possible
from shardstream.train.runs.saved_model import ModelInfo, ModelWriter
from shardstream.train.runs.skipped_records import write_bad_records
from shardstream.train.runs.tensorboard import TensorBoardLogs

logger = logging.getLogger(__name__)


def train_and_evaluate(
    config: TrainConfig, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> TrainResult:
    """Trains as `config` says, writes the results to the run folder and returns them.

    Raises:
        ConfigError: An option does not fit the dataset, the machine or an unfinished run, or the run folder is taken.
        DatasetError: The dataset is missing, incomplete or corrupt.
        DivergedError: The loss became infinite or NaN.
        StoppedError: SIGTERM, SIGHUP or Ctrl-C was received; the state is saved.
        WorkerLostError: Another worker did not connect, or was lost.
        MachineError: The disk is full or fails at the end; during training, that is a warning.
    """
    if not find_cluster(config.hosts, config.rank).is_chief:
        workers = join_workers(strategy=config.strategy, hosts=config.hosts, rank=config.rank)
        with workers.noticing_losses():
            return _follow(config, workers, callbacks)
    folder = RunFolder(config.run)
    folder.check()
    with folder.locked(), machine_errors(folder.path):
        folder.check()  # Another process may have used it until now.
        workers = join_workers(strategy=config.strategy, hosts=config.hosts, rank=config.rank)
        with workers.noticing_losses():
            return _lead(config, folder, workers, callbacks)


def _lead(
    config: TrainConfig, folder: RunFolder, workers: Workers, callbacks: Sequence[keras.callbacks.Callback]
) -> TrainResult:
    """Trains as the chief, or only, process, which writes the run folder."""
    began = time.monotonic()
    checkpoints = Checkpoints(folder.checkpoints)
    unfinished = find_resumable(folder, checkpoints) if config.resume else None
    if unfinished:
        setup = prepare(unfinished.resolve(config), unfinished.options["candidates"])
        unfinished.check_same(folder, setup.describe())
    else:
        setup = prepare(config)
    for note in missing_class_notes(setup.info, SPLITS):
        logger.warning("%s", note)
    checkpoint = unfinished.checkpoint if unfinished else None
    best_by = unfinished.options["best_by"] if unfinished else BEST_BY
    del unfinished  # With its state, so that it is not held in memory during the run.
    broadcast_run(workers, setup.describe(), checkpoint)
    stop = StopRequest(parse_secs("grace", config.grace))
    history = History(folder.history, best_by)
    of_features, head = setup.of_features, None
    if of_features and not checkpoint:
        _create(folder, setup)
        head = fit_head(of_features, config.grace, is_first_of_two=setup.frozen is not None)
        setup = of_features if head.suffices else setup
    data = make_data(setup)
    trainer, writer = make_model(setup)
    own = (writer, make_model_info(setup, writer))
    beginning = _first_of_two(of_features) if of_features and of_features is not setup else own
    models = ModelSaver(folder, *own, history, beginning=beginning)
    every = parse_interval("save_every", config.save_every)
    saver = CheckpointManager(checkpoints, trainer, history, models, every=every, stop=stop, began=began)
    if checkpoint:
        saver.restore(checkpoint)
        del checkpoint
        checkpoints.remove_incomplete()
        logger.info("goes on from %s", saver.last_position)
    elif head:
        models.best_weights = head.model_weights(beginning[0].twin)
        history.rows.append(head.row)
        if beginning is own:
            trainer.model.set_weights(models.best_weights)
    else:
        if config.weights != "none":
            begin_with(trainer.model, config.weights, setup.info.class_names)
        _create(folder, setup)
    with make_progress() as progress, stop:
        kept = [
            history,
            models,
            Curves(folder.curves, history, title=setup.title),
            TensorBoardLogs(folder.logs, history),
            InputWarning(history.rows, config.data_dir),
        ]
        callbacks = [*kept, *early_stopping(config, history.rows), progress, *callbacks]
        loop = make_loop(setup, data, trainer, callbacks, saver.keep)
        with _diverging(folder, saver, models), sharing_records(workers):
            loop.run(saver.last_position)
    val_loss = history.best()["val_loss"]
    if history.best()["epoch"] and (found := calibrate(setup, writer.twin, models.best_weights)):
        models.replace_best(found.weights, temperature=found.temperature)
        val_loss = found.val_loss
    folder.finish()
    result = summarize(config.run, history, saver, models.best_info(), val_loss=val_loss)
    broadcast_result(workers, result)
    return result


def _first_of_two(setup: ResolvedConfig) -> tuple[ModelWriter, ModelInfo]:
    """Returns writer and metadata of the model on features, which the other candidate has to beat."""
    writer = make_writer(setup)
    return writer, make_model_info(setup, writer)


def _create(folder: RunFolder, setup: ResolvedConfig) -> None:
    folder.create(setup.describe())
    if any(map(len, setup.bad_records.values())):
        write_bad_records(folder.bad_records, setup.data, setup.bad_records)


def _follow(
    config: TrainConfig, workers: Workers, callbacks: Sequence[keras.callbacks.Callback]
) -> TrainResult:
    """Trains as one of the other workers, which follow the chief and write nothing."""
    received = receive_run(workers)
    setup = prepare(received.resolve(config), received.options["candidates"])
    received.check_same(workers, setup.describe())
    stop = StopRequest(parse_secs("grace", config.grace))
    of_features, head = setup.of_features, None
    if of_features and not received.checkpoint:
        head = help_fit_head(of_features, config.grace)
        setup = of_features if head.suffices else setup
    data = make_data(setup)
    trainer, writer = make_model(setup)
    position, history = BEGINNING, []
    if received.checkpoint:
        trainer.restore(received.checkpoint.variables)
        position, history = received.checkpoint.position, received.checkpoint.history
        del received
    elif head:
        if setup is of_features:
            trainer.model.set_weights(head.model_weights(writer.twin))
    elif config.weights != "none":
        begin_with(trainer.model, config.weights, setup.info.class_names)
    callbacks = [*early_stopping(config, history), *callbacks]
    with stop, sharing_records(workers):
        make_loop(setup, data, trainer, callbacks, NonChief(trainer, stop).keep).run(position)
    return receive_result(workers)


@contextlib.contextmanager
def sharing_records(workers: Workers) -> Iterator[None]:
    """Adds to the error about a NaN or infinite loss the records that other workers had in the batch."""
    try:
        yield
    except DivergedError as error:
        mine = "\n".join(error.records).encode("utf-8", "surrogateescape")
        parts = [part.decode("utf-8", "surrogateescape").split("\n") for part in workers.gather(mine)]
        raise DivergedError(str(error), sorted(name for part in parts for name in part)) from None


@contextlib.contextmanager
def _diverging(folder: RunFolder, saver: CheckpointManager, models: ModelSaver) -> Iterator[None]:
    """Writes down all images of the step whose loss was NaN or infinite, and names the last finite state."""
    try:
        yield
    except DivergedError as error:
        text = "".join(f"{name}\n" for name in error.records)
        content = text.encode("utf-8", "surrogateescape")
        write_if_possible(folder.diverged, lambda path: path.write_bytes(content))
        models.write_missing()
        raise DivergedError(f"{error}; {saver.what_is_kept()}", error.records) from None


def make_loop(
    setup: ResolvedConfig,
    data: TrainingData,
    trainer: Trainer,
    callbacks: Sequence[keras.callbacks.Callback],
    keep: Callable[[Progress], None],
) -> Loop:
    """Returns the loop over all epochs."""
    return Loop(
        trainer,
        data,
        epochs=setup.epochs,
        callbacks=callbacks,
        keep=keep,
        steps_per_execution=setup.config.steps_per_execution,
    )


def early_stopping(config: TrainConfig, history: Sequence[Mapping[str, float]]) -> list[EarlyStopping]:
    """Returns the early stopping callback, if requested."""
    # Epoch 0 is a head on features, perhaps of another model: training did not start from it.
    trained = [row for row in history if row["epoch"]]
    return [EarlyStopping(trained, patience=patience)] if (patience := config.early_stopping) else []


@contextlib.contextmanager
def make_progress() -> Iterator[keras.callbacks.Callback]:
    """Gives a progress bar on a terminal, else a line for every epoch."""
    if not sys.stderr.isatty():
        yield ProgressLines()
        return
    bar = ProgressBar()
    try:
        yield bar
    finally:
        bar.close()
