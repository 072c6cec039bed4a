"""A training run from its options to its run folder."""

import contextlib
import dataclasses
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from ingest.errors import ConfigError, DatasetError, machine_errors
from ingest.metadata import DatasetInfo
from ingest.sizes import parse_size
from train.applications import check_image_size
from train.augment import make_augmentation, view_size
from train.bad_records import BadRecord, find_bad_records, without_bad_records, write_bad_records
from train.cache import Room, Tier, choose_tier, make_source
from train.cache_folder import CacheFolder, default_cache_dir
from train.callbacks import Curves, History, InputWarning, ModelSaver, ProgressBar, ProgressLines
from train.checkpoint import BEGINNING, Checkpoints, Position
from train.cluster import find_cluster
from train.config import JitCompile, TrainConfig
from train.dataset import load_dataset
from train.durations import parse_interval, parse_secs
from train.early_stopping import EarlyStopping
from train.export import ModelInfo, ModelWriter
from train.input_pipeline import ExampleSource
from train.interruption import StopRequest
from train.loop import DivergedError, Loop
from train.machine import free_memory_bytes
from train.model_memory import training_bytes
from train.models import build_model
from train.optimizers import Recipe, balanced_weights, default_epochs, default_head_epochs, make_recipe
from train.orders import give_orders, take_orders
from train.phases import one_phase, two_phases
from train.result import TrainResult, hear_result, summarize, tell_result
from train.resume import find_unfinished
from train.run_folder import RunFolder, write_if_possible
from train.runtime import (
    check_batch_size,
    free_device_bytes,
    precision_scope,
    resolve_jit_compile,
    resolve_precision,
    set_deterministic,
    set_seed,
    versions,
)
from train.saving import Follower, StateSaver
from train.share import steps_per_epoch
from train.steps import Steps
from train.tensorboard import TensorBoardLogs
from train.weights import fix_moments, load_weights
from train.workers import Workers, join_workers

logger = logging.getLogger(__name__)

_IMAGE_SIZE_OF_ORIGINALS = 300


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Setup:
    """A run with everything decided that its options leave open."""

    config: TrainConfig
    info: DatasetInfo
    workers: Workers
    image_size: int
    precision: str
    cache: Tier
    recipe: Recipe
    epochs: int
    head_epochs: int
    jit_compile: JitCompile
    bad: Sequence[BadRecord]
    bad_records: Mapping[str, Sequence[int]]

    @property
    def strategy(self) -> tf.distribute.Strategy:
        """How the devices share a batch."""
        return self.workers.strategy

    @property
    def num_replicas(self) -> int:
        """How many devices share a batch."""
        return self.strategy.num_replicas_in_sync

    @property
    def num_workers(self) -> int:
        """How many processes train together."""
        return self.workers.cluster.num_workers

    @property
    def steps_per_epoch(self) -> int:
        """The number of whole batches in the training split."""
        return steps_per_epoch(self.info.split("train"), self.config.batch_size, self.num_workers)

    @property
    def title(self) -> str:
        """What the curves are called, in ASCII: not every machine has the letters of every name."""
        size = self.image_size
        return f"{self.config.model}, {size}x{size}, batches of {self.config.batch_size}, {self.precision}"

    def describe(self) -> dict[str, Any]:
        """Returns what config.json says."""
        options = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in dataclasses.asdict(self.config).items()
        }
        return {
            **options,
            "image_size": self.image_size,
            "precision": self.precision,
            "epochs": self.epochs,
            "head_epochs": self.head_epochs,
            "jit_compile": self.jit_compile,
            "cache": self.cache,
            **dataclasses.asdict(self.recipe),
            "num_replicas": self.num_replicas,
            "num_workers": self.num_workers,
            "steps_per_epoch": self.steps_per_epoch,
            "dataset_fingerprint": self.info.fingerprint,
            "bad_records": {name: list(positions) for name, positions in self.bad_records.items()},
            "versions": versions(),
        }


def train_and_evaluate(
    config: TrainConfig, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> TrainResult:
    """Trains what `config` says, keeps the results in its run folder and returns the figures.

    Raises:
        ConfigError: An option does not fit the dataset, the machine or an unfinished run, or the run folder is taken.
        DatasetError: The dataset is not there, not complete or damaged.
        DivergedError: The loss became infinite or no number.
        StoppedError: SIGTERM or Ctrl-C; the state is saved.
        MachineError: The disk is full or fails at the end; while training goes on, that is a warning.
    """
    if not find_cluster(config.hosts, config.rank).is_chief:
        return _follow(config, callbacks)
    folder = RunFolder(config.run)
    folder.check()
    with folder.locked(), machine_errors(folder.path):
        return _lead(config, folder, callbacks)


def _lead(
    config: TrainConfig, folder: RunFolder, callbacks: Sequence[keras.callbacks.Callback]
) -> TrainResult:
    """Trains as the one process of a run, or as that of several workers which writes the run folder."""
    began = time.monotonic()
    folder.check()  # Another process may have been there until now.
    workers = join_workers(config)
    checkpoints = Checkpoints(folder.checkpoints)
    unfinished = find_unfinished(folder, checkpoints) if config.resume else None
    setup = prepare(unfinished.settle(config), unfinished.bad_records) if unfinished else prepare(config)
    if unfinished:
        unfinished.check_same(folder, setup.describe())
    with workers.noticing_losses():
        give_orders(workers, setup.describe(), unfinished.checkpoint if unfinished else None)
    stop = StopRequest(parse_secs("grace", config.grace))
    history = History(folder.history)
    sources = make_sources(setup)
    steps, writer = make_model(setup)
    models = ModelSaver(folder, writer, make_model_info(setup, writer.twin), history)
    every = parse_interval("save_every", config.save_every)
    saver = StateSaver(checkpoints, steps, history, models, every=every, stop=stop, began=began)
    if unfinished:
        saver.restore(unfinished.checkpoint)
        checkpoints.sweep()
        logger.info("goes on from %s", saver.last_position)
    else:
        if config.weights != "none":
            load_weights(steps.model, config.weights)
        folder.create(setup.describe())
        if setup.bad:
            write_bad_records(folder.bad_records, setup.info, setup.bad)
    with make_progress() as progress, stop, workers.noticing_losses():
        kept = [
            history,
            models,
            Curves(folder.curves, history, title=setup.title),
            TensorBoardLogs(folder.logs, history),
            InputWarning(history, config.data_dir),
        ]
        callbacks = [*kept, *early_stopping(config, history.rows), progress, *callbacks]
        loop = make_loop(setup, sources, steps, callbacks, saver.keep)
        with _diverging(folder, saver), sharing_records(workers):
            loop.run(saver.last_position)
    folder.finish()
    result = summarize(config.run, history, saver, num_parameters=writer.twin.count_params())
    with workers.noticing_losses():
        tell_result(workers, result)
    return result


def _follow(config: TrainConfig, callbacks: Sequence[keras.callbacks.Callback]) -> TrainResult:
    """Trains as one of the other workers, which do what the chief says and write nothing."""
    workers = join_workers(config)
    with workers.noticing_losses():
        orders = take_orders(workers)
        setup = prepare(orders.settle(config))
        orders.check_same(workers, setup.describe())
        stop = StopRequest(parse_secs("grace", config.grace))
        sources = make_sources(setup)
        steps, _ = make_model(setup)
        position, history = BEGINNING, []
        if orders.checkpoint:
            steps.restore(orders.checkpoint.variables)
            position, history = orders.checkpoint.position, orders.checkpoint.history
        elif config.weights != "none":
            load_weights(steps.model, config.weights)
        callbacks = [*early_stopping(config, history), *callbacks]
        with stop, sharing_records(workers):
            make_loop(setup, sources, steps, callbacks, Follower(steps, stop).keep).run(position)
        return hear_result(workers)


@contextlib.contextmanager
def sharing_records(workers: Workers) -> Iterator[None]:
    """Adds to a batch whose loss was no number what other workers had of it."""
    try:
        yield
    except DivergedError as error:
        mine = "\n".join(error.records).encode("utf-8", "surrogateescape")
        parts = [part.decode("utf-8", "surrogateescape").split("\n") for part in workers.gather(mine)]
        raise DivergedError(str(error), sorted(name for part in parts for name in part)) from None


@contextlib.contextmanager
def _diverging(folder: RunFolder, saver: StateSaver) -> Iterator[None]:
    """Writes down all pictures of the step whose loss was no number, and says which state is sound."""
    try:
        yield
    except DivergedError as error:
        text = "".join(f"{name}\n" for name in error.records)
        content = text.encode("utf-8", "surrogateescape")
        write_if_possible(folder.diverged, lambda path: path.write_bytes(content))
        raise DivergedError(f"{error}; {saver.what_is_kept()}", error.records) from None


def prepare(config: TrainConfig, bad_records: Mapping[str, Sequence[int]] | None = None) -> Setup:
    """Returns the run that `config` means on this machine: whatever can be refused is refused here.

    Args:
        config: The options.
        bad_records: For each split the positions of what is left out, where that is known from before.

    Raises:
        ConfigError: An option does not fit the dataset or the machine.
        DatasetError: The dataset is not there, not complete or has no training or validation split.
        LimitError: There are more bad records than may be left out.
    """
    info = load_dataset(config.data_dir)
    for name in ("train", "validation"):
        if name not in info.splits:
            raise DatasetError(
                f"{info.data_dir}: no split {name!r}, which training needs; build the dataset with --validation 0.2"
            )
    image_size = config.image_size or info.image.size or _IMAGE_SIZE_OF_ORIGINALS
    bad: list[BadRecord] = []
    if bad_records is None and config.max_bad_records:
        names = ("train", "validation")
        bad = find_bad_records(info, names, image_size=image_size, limit=config.max_bad_records)
        bad_records = {name: [one.position for one in bad if one.place.split == name] for name in names}
    bad_records = bad_records or {}
    info = without_bad_records(info, bad_records)
    num_examples = info.splits["train"].num_examples
    if config.batch_size > num_examples:
        raise ConfigError(
            f"batch_size {config.batch_size} is more than the {num_examples} pictures of split 'train'; "
            "choose a smaller --batch-size"
        )
    recipe = make_recipe(config)
    workers = join_workers(config)
    check_batch_size(config.batch_size, workers.strategy.num_replicas_in_sync)
    check_image_size(config.model, image_size)
    epochs = config.epochs or default_epochs(recipe, num_examples // config.batch_size)
    head_epochs = default_head_epochs(config, epochs) if config.head_epochs is None else config.head_epochs
    if head_epochs > epochs:
        raise ConfigError(f"head_epochs {head_epochs} is more than the {epochs} epochs there are")
    precision = resolve_precision(config.precision)
    return Setup(
        config=config,
        info=info,
        workers=workers,
        image_size=image_size,
        precision=precision,
        cache=_settle_cache(config, info, workers, image_size=image_size, precision=precision),
        recipe=recipe,
        jit_compile=resolve_jit_compile(config.jit_compile, workers.strategy.num_replicas_in_sync),
        epochs=epochs,
        head_epochs=head_epochs,
        bad=bad,
        bad_records=bad_records,
    )


def _settle_cache(
    config: TrainConfig,
    info: DatasetInfo,
    workers: Workers,
    *,
    image_size: int,
    precision: str,
) -> Tier:
    if config.cache != "auto":
        return config.cache
    device_bytes = free_device_bytes()
    with precision_scope(precision):
        model = build_model(
            config.model,
            image_size=view_size(config, image_size=image_size) or image_size,
            num_classes=info.num_classes,
            seed=config.seed,
        )
    # Where the CPU trains, its memory holds what all replicas of this worker need.
    num_parts = workers.share.num_workers if device_bytes is None else workers.strategy.num_replicas_in_sync
    room = Room(
        model=training_bytes(model, config.batch_size // num_parts),
        device=device_bytes,
        memory=free_memory_bytes(),
        disk=_cache_folder(config).free_bytes(),
    )
    shares = [workers.share.of(info.split(name)) for name in ("train", "validation")]
    return choose_tier(shares, image_size, room)


def _cache_folder(config: TrainConfig) -> CacheFolder:
    limit = parse_size("--cache-limit", config.cache_limit) if config.cache_limit else None
    return CacheFolder(config.cache_dir or default_cache_dir(), limit_bytes=limit)


def make_sources(setup: Setup) -> tuple[ExampleSource, ExampleSource]:
    """Returns the training and the validation split, cached as was decided."""
    train, validation = (
        make_source(
            setup.info,
            name,
            tier=setup.cache,
            image_size=setup.image_size,
            share=setup.workers.share,
            strategy=setup.strategy,
            folder=_cache_folder(setup.config),
        )
        for name in ("train", "validation")
    )
    return train, validation


def make_loop(
    setup: Setup,
    sources: tuple[ExampleSource, ExampleSource],
    steps: Steps,
    callbacks: Sequence[keras.callbacks.Callback],
    keep: Callable[[Position], None],
) -> Loop:
    """Returns the loop over all epochs."""
    train, validation = sources
    return Loop(
        steps,
        info=setup.info,
        train=train,
        validation=validation,
        epochs=setup.epochs,
        batch_size=setup.config.batch_size,
        seed=setup.config.seed,
        callbacks=callbacks,
        keep=keep,
        steps_per_execution=setup.config.steps_per_execution,
    )


def early_stopping(config: TrainConfig, history: Sequence[Mapping[str, float]]) -> list[EarlyStopping]:
    """Returns the callback for it where it is asked for."""
    return [EarlyStopping(history, patience=patience)] if (patience := config.early_stopping) else []


def make_model(setup: Setup) -> tuple[Steps, ModelWriter]:
    """Returns the steps of a new model, and what writes it to disk."""
    config = setup.config
    shape: dict[str, Any] = {
        "image_size": setup.image_size,
        "num_classes": setup.info.num_classes,
        "seed": config.seed,
    }
    set_seed(config.seed)
    if config.deterministic:
        set_deterministic()
    with setup.strategy.scope(), precision_scope(setup.precision):
        whole = view_size(config, image_size=setup.image_size) in (None, setup.image_size)
        trained = shape if whole else {**shape, "image_size": None}
        model = build_model(config.model, **trained, synchronized=setup.num_replicas > 1)
        augmentation = make_augmentation(config, image_size=setup.image_size)
        lengths = {"epochs": setup.epochs, "steps_per_epoch": setup.steps_per_epoch}
        if config.weights == "none":
            phases = one_phase(model, setup.recipe, **lengths)
        else:
            fix_moments(model)
            phases = two_phases(model, setup.recipe, head_epochs=setup.head_epochs, **lengths)
    weights = balanced_weights(setup.info.split("train").class_counts)
    with precision_scope("float32"):
        twin = build_model(config.model, **shape)
    steps = Steps(
        model,
        setup.strategy,
        phases=phases,
        augmentation=augmentation,
        label_smoothing=setup.recipe.label_smoothing,
        class_weights=weights if config.class_weight == "balanced" else None,
        clip_norm=config.clip_norm,
        jit_compile=setup.jit_compile == "on",
        num_workers=setup.num_workers,
    )
    return steps, ModelWriter(twin)


def make_model_info(setup: Setup, model: keras.Model) -> ModelInfo:
    """Returns what travels with the model."""
    return ModelInfo(
        class_names=setup.info.class_names,
        display_names=setup.info.display_names,
        image_size=setup.image_size,
        resize=setup.info.image.resize,
        model=setup.config.model,
        dataset_fingerprint=setup.info.fingerprint,
        num_parameters=model.count_params(),
        precision=setup.precision,
        versions=versions(),
    )


@contextlib.contextmanager
def make_progress() -> Iterator[keras.callbacks.Callback]:
    """Gives a bar on a terminal, and a line for every epoch elsewhere."""
    if not sys.stderr.isatty():
        yield ProgressLines()
        return
    bar = ProgressBar()
    try:
        yield bar
    finally:
        bar.close()
