"""Resolves all options of a run that are left open, and builds its data and model."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.config import JitCompile, TrainConfig, gradient_defaults
from shardstream.train.data.dataset import Dataset, load_dataset
from shardstream.train.data.sampling import ORDER_VERSION
from shardstream.train.data.skipping import BadRecords
from shardstream.train.distributed.strategy import (
    check_batch_size,
    fitting_batch_size,
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
from shardstream.train.models.optimizers import (
    Recipe,
    balanced_weights,
    default_batch_size,
    default_epochs,
    default_head_epochs,
    make_recipe,
)
from shardstream.train.models.phases import fine_tune_phase, one_phase, two_phases
from shardstream.train.models.registry import (
    AUTO,
    AUTO_BACKBONE,
    AUTO_TRAINED,
    BACKBONES,
    FineTune,
    check_image_size,
)
from shardstream.train.models.weights import fix_moments
from shardstream.train.plan import log_plan, make_plan
from shardstream.train.runs.best_epoch import BEST_BY
from shardstream.train.runs.saved_model import ModelWriter

_IMAGE_SIZE_OF_ORIGINALS = 300
_MIN_DETAIL = 32
# Height and width of what `small` sees beside a backbone. It is trained where thumbnails of 16x16 tell much already: on
# hand signs of 100x100 it reached 0.987 at that size and 0.974 at 64x64, on hiragana 0.995 at 64, 84 and 128.
_MAX_BESIDE_BACKBONE = 96
SPLITS = ("train", "validation")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ResolvedConfig:
    """A run with all open options resolved.

    Attributes:
        config: Its options; with `auto`, those of the candidate that is trained by gradients.
        candidates: With `auto`, the candidates in the order they are tried; empty if the user named a model.
        frozen: With `auto`, the candidate on frozen features, if there is another one.
    """

    config: TrainConfig
    data: Dataset
    workers: Workers
    image_size: int
    batch_size: int
    precision: str
    recipe: Recipe
    epochs: int
    head_epochs: int
    jit_compile: JitCompile
    bad_records: Mapping[str, BadRecords]
    candidates: Sequence[str] = ()
    frozen: "ResolvedConfig | None" = None

    @property
    def of_features(self) -> "ResolvedConfig | None":
        """The run that starts with a classifier on features: this run, the first of two candidates, or None."""
        return self if self.config.model in BACKBONES else self.frozen

    @property
    def info(self) -> DatasetInfo:
        """Metadata of the dataset."""
        return self.data.info

    @property
    def strategy(self) -> tf.distribute.Strategy:
        """The distribution strategy."""
        return self.workers.strategy

    @property
    def num_replicas(self) -> int:
        """Number of devices that share a batch."""
        return self.strategy.num_replicas_in_sync

    @property
    def num_workers(self) -> int:
        """Number of processes that train together."""
        return self.workers.cluster.num_workers

    @property
    def steps_per_epoch(self) -> int:
        """The number of complete batches in the training split."""
        return self.data.steps_per_epoch(self.batch_size)

    @property
    def title(self) -> str:
        """Title of the curves, in ASCII: not every machine has fonts for all scripts."""
        size = self.image_size
        return f"{self.config.model}, {size}x{size}, batches of {self.batch_size}, {self.precision}"

    def describe(self) -> dict[str, Any]:
        """Returns the content of config.json."""
        options = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in dataclasses.asdict(self.config).items()
        }
        return {
            **options,
            "model": AUTO if self.candidates else self.config.model,
            "candidates": list(self.candidates),
            "best_by": BEST_BY,
            "image_size": self.image_size,
            "batch_size": self.batch_size,
            "precision": self.precision,
            "epochs": self.epochs,
            "head_epochs": self.head_epochs,
            "jit_compile": self.jit_compile,
            **dataclasses.asdict(self.recipe),
            "num_replicas": self.num_replicas,
            "num_workers": self.num_workers,
            "steps_per_epoch": self.steps_per_epoch,
            "order_version": ORDER_VERSION,
            "dataset_fingerprint": self.info.fingerprint,
            "bad_records": {
                name: bad.positions.tolist() for name, bad in self.bad_records.items() if len(bad)
            },
            "versions": versions(),
        }


def prepare(config: TrainConfig, candidates: Sequence[str] = ()) -> ResolvedConfig:
    """Returns `config` resolved for this machine; every check that can fail early is done here.

    Args:
        config: The options.
        candidates: Candidates of `auto` decided earlier, by the run to resume or by the chief.

    Raises:
        ConfigError: An option does not fit the dataset or the machine.
        DatasetError: The dataset is missing, incomplete or has no training or validation split.
        LimitError: More records are corrupt than may be skipped.
    """
    data = load_dataset(
        config.data_dir,
        cache_dir=config.cache_dir,
        validation_share=config.validation_share,
        seed=config.seed,
    )
    for name in SPLITS:
        if name not in data.splits:
            raise DatasetError(
                f"{config.data_dir}: no split {name!r}, which training needs; build the dataset with --validation 0.2"
            )
    if config.model != AUTO:
        return _prepare_one(config, data)
    # Options for training by gradients apply to only one candidate.
    of_backbone = dataclasses.replace(config, model=AUTO_BACKBONE, **gradient_defaults())
    num_train = data.splits["train"].num_examples
    candidates = candidates or make_plan(
        config, image_size=_image_size(of_backbone, data), num_train=num_train
    )
    of_trained = dataclasses.replace(config, model=AUTO_TRAINED)
    if len(candidates) > 1:  # Details are for the backbone, which sees all pixels.
        of_trained = dataclasses.replace(
            of_trained,
            image_size=config.image_size or min(_MAX_BESIDE_BACKBONE, _image_size(of_trained, data)),
        )
    resolved = [
        _prepare_one(of_backbone if name == AUTO_BACKBONE else of_trained, data) for name in candidates
    ]
    log_plan(candidates, epochs=resolved[-1].epochs)
    return dataclasses.replace(
        resolved[-1], candidates=tuple(candidates), frozen=resolved[0] if len(resolved) > 1 else None
    )


def _image_size(config: TrainConfig, data: Dataset) -> int:
    """Returns height and width of the images that a model sees.

    `small` takes as long as there are pixels: it does not see those that only enlarge the images. A backbone was
    trained at a size of its own.
    """
    stored, largest = data.image_size, data.info.largest_source_side
    if stored and largest and config.model == AUTO_TRAINED:
        stored = min(stored, max(_MIN_DETAIL, largest))
    return config.image_size or stored or BACKBONES.get(config.model, _IMAGE_SIZE_OF_ORIGINALS)


def _prepare_one(config: TrainConfig, data: Dataset) -> ResolvedConfig:
    image_size = _image_size(config, data)
    num_examples = data.splits["train"].num_examples
    recipe = make_recipe(config.model, dataclasses.asdict(config))
    # The devices are not known yet.
    batch_size = config.batch_size or min(num_examples, default_batch_size(recipe, num_examples))
    if config.model in BACKBONES and fine_tune(config) == "none":
        batch_size = min(batch_size, num_examples)  # No training in batches.
    if batch_size > num_examples:
        raise ConfigError(
            f"batch_size {batch_size} is larger than split 'train' with its {num_examples} examples; "
            "choose a smaller --batch-size"
        )
    bad_records = {
        name: data.bad_records(name, max_bad_records=config.max_bad_records, image_size=image_size)
        for name in SPLITS
        if config.max_bad_records
    }
    workers = join_workers(strategy=config.strategy, hosts=config.hosts, rank=config.rank)
    if config.batch_size is None:
        batch_size = fitting_batch_size(batch_size, workers.strategy.num_replicas_in_sync)
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
    return ResolvedConfig(
        config=config,
        data=data,
        workers=workers,
        image_size=image_size,
        batch_size=batch_size,
        precision=resolve_precision(config.precision),
        recipe=recipe,
        jit_compile=resolve_jit_compile(config.jit_compile, workers.strategy.num_replicas_in_sync),
        epochs=epochs,
        head_epochs=head_epochs,
        bad_records=bad_records,
    )


def fine_tune(config: TrainConfig) -> FineTune:
    """Returns which part of a backbone is fine-tuned."""
    return config.fine_tune or "none"


def make_model(setup: ResolvedConfig) -> tuple[Trainer, ModelWriter]:
    """Returns the trainer of a new model, and the writer that saves it."""
    config = setup.config
    shape = _shape(setup)
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
            flip=config.flip,
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
    trainer = Trainer(
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
    return trainer, make_writer(setup)


def make_writer(setup: ResolvedConfig) -> ModelWriter:
    """Returns the writer that saves a model of that kind."""
    with precision_scope("float32"):
        return ModelWriter(build_model(setup.config.model, **_shape(setup)))


def _shape(setup: ResolvedConfig) -> dict[str, Any]:
    return {
        "image_size": setup.image_size,
        "num_classes": setup.info.num_classes,
        "seed": setup.config.seed,
    }
