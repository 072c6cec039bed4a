"""A run with everything decided that its options leave open, and what it is made of: pictures and a model."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from shardstream.ingest.common.byte_size import parse_size
from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.common.memory_limits import free_memory_bytes
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.config import JitCompile, TrainConfig
from shardstream.train.data.bad_records import BadRecord, find_bad_records, without_bad_records
from shardstream.train.data.cache import Free, Tier, choose_tier, decoded_bytes, make_source
from shardstream.train.data.cache_folder import CacheFolder, default_cache_dir
from shardstream.train.data.dataset import load_dataset
from shardstream.train.data.input_pipeline import ExampleSource
from shardstream.train.data.share import steps_per_epoch
from shardstream.train.distributed.strategy import (
    check_batch_size,
    free_device_bytes,
    precision_scope,
    resolve_jit_compile,
    resolve_precision,
    set_deterministic,
    set_seed,
    versions,
)
from shardstream.train.distributed.workers import Workers, join_workers
from shardstream.train.engine.trainer import Trainer
from shardstream.train.models.augmentation import make_augmentation, view_size
from shardstream.train.models.build import build_model
from shardstream.train.models.memory import training_bytes
from shardstream.train.models.optimizers import (
    Recipe,
    balanced_weights,
    default_batch_size,
    default_epochs,
    default_head_epochs,
    make_recipe,
)
from shardstream.train.models.phases import fine_tune_phase, one_phase, two_phases
from shardstream.train.models.registry import BACKBONES, FineTune, check_image_size
from shardstream.train.models.weights import fix_moments
from shardstream.train.runs.saved_model import ModelInfo, ModelWriter

_IMAGE_SIZE_OF_ORIGINALS = 300


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ResolvedConfig:
    """A run with everything decided that its options leave open."""

    config: TrainConfig
    info: DatasetInfo
    workers: Workers
    image_size: int
    batch_size: int
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
        return steps_per_epoch(self.info.split("train"), self.batch_size, self.num_workers)

    @property
    def title(self) -> str:
        """What the curves are called, in ASCII: not every machine has the letters of every name."""
        size = self.image_size
        return f"{self.config.model}, {size}x{size}, batches of {self.batch_size}, {self.precision}"

    def describe(self) -> dict[str, Any]:
        """Returns what config.json says."""
        options = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in dataclasses.asdict(self.config).items()
        }
        return {
            **options,
            "image_size": self.image_size,
            "batch_size": self.batch_size,
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


def prepare(
    config: TrainConfig,
    bad_records: Mapping[str, Sequence[int]] | None = None,
    hosts: Mapping[str, Free] | None = None,
) -> ResolvedConfig:
    """Returns the run that `config` means on this machine: whatever can be refused is refused here.

    Args:
        config: The options.
        bad_records: For each split the positions of what is left out, where that is known from before.
        hosts: What is free on each host, by its name; by default on this one, as nobody else was asked.

    Raises:
        ConfigError: An option does not fit the dataset or the machine.
        DatasetError: The dataset is not there, not complete or has no training or validation split.
        LimitError: There are more bad records than may be left out.
    """
    info = load_dataset(config.data_dir, cache_dir=config.cache_dir)
    for name in ("train", "validation"):
        if name not in info.splits:
            raise DatasetError(
                f"{info.data_dir}: no split {name!r}, which training needs; build the dataset with --validation 0.2"
            )
    of_originals = BACKBONES.get(config.model, _IMAGE_SIZE_OF_ORIGINALS)
    image_size = config.image_size or info.image.size or of_originals
    bad: list[BadRecord] = []
    if bad_records is None and config.max_bad_records:
        names = ("train", "validation")
        bad = find_bad_records(info, names, image_size=image_size, limit=config.max_bad_records)
        bad_records = {name: [one.position for one in bad if one.place.split == name] for name in names}
    bad_records = bad_records or {}
    info = without_bad_records(info, bad_records)
    num_examples = info.splits["train"].num_examples
    recipe = make_recipe(config.model, dataclasses.asdict(config))
    batch_size = config.batch_size or default_batch_size(recipe, num_examples)
    if config.model in BACKBONES and fine_tune(config) == "none":
        batch_size = min(batch_size, num_examples)  # Nothing is trained in batches.
    if batch_size > num_examples:
        raise ConfigError(
            f"batch_size {batch_size} is more than the {num_examples} pictures of split 'train'; "
            "choose a smaller --batch-size"
        )
    workers = join_workers(strategy=config.strategy, hosts=config.hosts, rank=config.rank)
    check_batch_size(batch_size, workers.strategy.num_replicas_in_sync)
    check_image_size(config.model, image_size)
    epochs = config.epochs or default_epochs(recipe, num_examples, batch_size)
    if config.model in BACKBONES and fine_tune(config) == "none":
        epochs = 0
    head_epochs = (
        default_head_epochs(config.weights, epochs) if config.head_epochs is None else config.head_epochs
    )
    if head_epochs > epochs:
        raise ConfigError(f"head_epochs {head_epochs} is more than the {epochs} epochs there are")
    precision = resolve_precision(config.precision)
    return ResolvedConfig(
        config=config,
        info=info,
        workers=workers,
        image_size=image_size,
        batch_size=batch_size,
        precision=precision,
        cache=_settle_cache(
            config, info, workers, hosts, image_size=image_size, batch_size=batch_size, precision=precision
        ),
        recipe=recipe,
        jit_compile=resolve_jit_compile(config.jit_compile, workers.strategy.num_replicas_in_sync),
        epochs=epochs,
        head_epochs=head_epochs,
        bad=bad,
        bad_records=bad_records,
    )


def fine_tune(config: TrainConfig) -> FineTune:
    """Returns what of a backbone is trained by gradients."""
    return config.fine_tune or "none"


def _settle_cache(
    config: TrainConfig,
    info: DatasetInfo,
    workers: Workers,
    hosts: Mapping[str, Free] | None,
    *,
    image_size: int,
    batch_size: int,
    precision: str,
) -> Tier:
    if config.cache != "auto":
        return config.cache
    if config.model in BACKBONES and fine_tune(config) == "none":
        return "none"  # Each image is decoded once.
    hosts = hosts or {workers.cluster.name: find_free(config)}
    with precision_scope(precision):
        model = build_model(
            config.model,
            image_size=view_size(config.augmentation, model=config.model, image_size=image_size)
            or image_size,
            num_classes=info.num_classes,
            seed=config.seed,
        )
    # Where the CPU trains, its memory holds what all replicas of this worker need.
    has_gpus = all(free.device is not None for free in hosts.values())
    num_parts = workers.strategy.num_replicas_in_sync if has_gpus else workers.share.num_workers
    shares = [workers.share.of(info.split(name)) for name in ("train", "validation")]
    model_bytes = training_bytes(model, batch_size // num_parts)
    return choose_tier(decoded_bytes(shares, image_size), model_bytes, hosts)


def find_free(config: TrainConfig) -> Free:
    """Returns what is free on this host."""
    return Free(free_device_bytes(), free_memory_bytes(), _cache_folder(config).free_bytes())


def _cache_folder(config: TrainConfig) -> CacheFolder:
    limit = parse_size("--cache-limit", config.cache_limit) if config.cache_limit else None
    return CacheFolder(config.cache_dir or default_cache_dir(), limit_bytes=limit)


def make_sources(setup: ResolvedConfig) -> tuple[ExampleSource, ExampleSource]:
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


def make_model(setup: ResolvedConfig) -> tuple[Trainer, ModelWriter]:
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
        whole = view_size(config.augmentation, model=config.model, image_size=setup.image_size) in (
            None,
            setup.image_size,
        )
        trained = shape if whole else {**shape, "image_size": None}
        model = build_model(config.model, **trained, synchronized=setup.num_replicas > 1)
        augmentation = make_augmentation(
            config.augmentation,
            model=config.model,
            image_size=setup.image_size,
            mixup=config.mixup,
            cutmix=config.cutmix,
            seed=config.seed,
        )
        lengths = {"epochs": setup.epochs, "steps_per_epoch": setup.steps_per_epoch}
        if config.model in BACKBONES:
            fix_moments(model)
            phases = fine_tune_phase(model, setup.recipe, fine_tune=fine_tune(config), **lengths)
        elif config.weights == "none":
            phases = one_phase(model, setup.recipe, **lengths)
        else:
            fix_moments(model)
            phases = two_phases(model, setup.recipe, head_epochs=setup.head_epochs, **lengths)
    weights = balanced_weights(setup.info.split("train").class_counts)
    with precision_scope("float32"):
        twin = build_model(config.model, **shape)
    steps = Trainer(
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


def make_model_info(setup: ResolvedConfig, model: keras.Model) -> ModelInfo:
    """Returns what travels with the model."""
    return ModelInfo(
        class_names=setup.info.class_names,
        display_names=setup.info.display_names,
        image_size=setup.image_size,
        resize=setup.info.image.resize,
        stored_size=setup.info.image.size,
        encoding=setup.info.image.encoding,
        quality=setup.info.image.quality,
        model=setup.config.model,
        dataset_fingerprint=setup.info.fingerprint,
        num_parameters=model.count_params(),
        precision=setup.precision,
        versions=versions(),
    )
