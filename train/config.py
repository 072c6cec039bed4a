"""The options of `shardstream-train`, checked as soon as they are given."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

import tyro

from shardstream.ingest.common.durations import parse_interval, parse_secs
from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.common.option_values import option_value
from shardstream.train.distributed.cluster import JitCompile, Precision, StrategyName, find_cluster
from shardstream.train.models.registry import (
    AUTO,
    BACKBONES,
    MAX_IMAGE_SIZE,
    OWN_MODELS,
    AugmentationName,
    FineTune,
    ScheduleName,
    find_model,
)
from shardstream.train.option_help import (
    AUGMENTATION_HELP,
    CACHE_HELP,
    DEVICES_HELP,
    FINE_TUNE_HELP,
    JIT_HELP,
    MODEL_HELP,
    PRECISION_HELP,
    RESUME_HELP,
    STRATEGY_HELP,
    TRAIN_GROUPS,
    WEIGHTS_HELP,
)

Cache = Literal["auto", "none", "memory", "disk"]
OptionalStr = Annotated[str | None, tyro.conf.arg(metavar="TEXT")]
ClassWeight = Literal["none", "balanced"]
OptionalInt = Annotated[int | None, tyro.conf.arg(metavar="N")]
OptionalSchedule = Annotated[ScheduleName | None, tyro.conf.arg(metavar="cosine|constant")]
OptionalFloat = Annotated[float | None, tyro.conf.arg(metavar="NUMBER")]

# The maximum of float32, in which weights and optimizer are computed.
_MAX_FLOAT32 = 3.4e38
_MAX_EPOCHS = 1_000_000
# The least and the largest value of each option that is a number.
_RANGES: dict[str, tuple[float, float]] = {
    # Images must survive four halvings in `small`, and two in `notebook`.
    "image_size": (8, MAX_IMAGE_SIZE),
    **dict.fromkeys(("batch_size", "early_stopping"), (1, math.inf)),
    "epochs": (1, _MAX_EPOCHS),
    **dict.fromkeys(("head_epochs", "warmup_epochs"), (0, _MAX_EPOCHS)),
    "max_bad_records": (0, math.inf),
    # The limit of NumPy's and Keras's generators.
    "seed": (0, 2**32 - 1),
    # Each step of a call is traced separately: 7 of `small` take 30 s on 2 cores.
    "steps_per_execution": (1, 1000),
    "weight_decay": (0, _MAX_FLOAT32),
    **dict.fromkeys(("learning_rate", "fine_tune_learning_rate", "clip_norm"), (-math.inf, _MAX_FLOAT32)),
    **dict.fromkeys(("mixup", "cutmix"), (0, 1)),
}

# Options that apply only to training by gradients.
_GRADIENT_OPTIONS = (
    *("epochs", "batch_size", "learning_rate", "weight_decay", "label_smoothing", "augmentation", "mixup"),
    *("cutmix", "flip", "schedule", "warmup_epochs", "clip_norm", "early_stopping", "steps_per_execution"),
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Trains a classifier on a dataset folder and keeps the best model in a run folder.

    After a kill, a preemption or a lost host, the same command resumes the run.

        shardstream-train data/photos --run runs/first
    """

    option_groups: ClassVar = TRAIN_GROUPS

    data_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """The dataset folder, as `shardstream-ingest build` or TensorFlow Datasets wrote it."""
    run: Path
    """The run folder to write, such as runs/first."""
    model: Annotated[str, tyro.conf.arg(metavar="NAME", help=MODEL_HELP)] = AUTO
    fine_tune: Annotated[FineTune | None, tyro.conf.arg(metavar="none|last|full", help=FINE_TUNE_HELP)] = None
    weights: Annotated[str, tyro.conf.arg(metavar="none|imagenet|PATH", help=WEIGHTS_HELP)] = "none"
    head_epochs: OptionalInt = None
    """With --weights: epochs that train the last layer alone; by default a quarter of all."""
    fine_tune_learning_rate: OptionalFloat = None
    """With --weights: the peak learning rate of the epochs after those; by default 0.00001."""
    image_size: OptionalInt = None
    """Height and width in pixels that the model sees; by default the stored size, for small at most that of the largest
    source image, and at most 96 beside lite0 in auto; 300 where originals are stored."""
    batch_size: OptionalInt = None
    """Images per step over all devices; by default about 32, or 16 for small with fewer than 1,000 images."""
    epochs: OptionalInt = None
    """Passes over the training split; by default 20, up to 50 for small datasets, up to 100 for small."""
    seed: int = 123
    """Seed of the initial weights, the order of the examples, augmentation and dropout."""
    learning_rate: OptionalFloat = None
    """The peak learning rate; by default 0.002 for small, 0.001 for other models."""
    weight_decay: OptionalFloat = None
    """Decoupled weight decay (AdamW); by default 0.02, 0 for notebook."""
    label_smoothing: OptionalFloat = None
    """Label smoothing; by default 0.1, or 0 for notebook, lite0, lite1 and lite2."""
    augmentation: Annotated[AugmentationName, tyro.conf.arg(help=AUGMENTATION_HELP)] = "default"
    flip: bool = True
    """Never flip images left to right, where that changes what they show, such as text."""
    mixup: float = 0.0
    """The alpha of MixUp, which blends two images and their labels, such as 0.2; 0 turns it off."""
    cutmix: float = 0.0
    """The alpha of CutMix, which pastes a crop of one image into another, such as 1; 0 turns it off."""
    schedule: OptionalSchedule = None
    """The learning rate after its warm-up; by default cosine, or constant for notebook."""
    warmup_epochs: OptionalFloat = None
    """Epochs in which the learning rate rises from 0; by default a tenth of all, at most 5, or 0 for notebook."""
    clip_norm: OptionalFloat = None
    """Clips the global norm of the gradients of a step; by default they are not clipped."""
    class_weight: ClassWeight = "none"
    """balanced: every class has the same weight in the loss, whatever its number of images."""
    early_stopping: OptionalInt = None
    """Stops when val_loss has not improved for N epochs; by default never."""
    steps_per_execution: int = 1
    """Steps per call of the compiled function: more of them cost less time in Python, but signals and checkpoints wait
    for the end of a call."""
    jit_compile: Annotated[JitCompile, tyro.conf.arg(help=JIT_HELP)] = "auto"
    deterministic: bool = False
    """Bit-identical weights for the same seed on the same device; slower on a GPU."""
    precision: Annotated[Precision, tyro.conf.arg(help=PRECISION_HELP)] = "auto"
    cache: Annotated[Cache, tyro.conf.arg(help=CACHE_HELP)] = "auto"
    cache_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The folder of disk caches, and of the record offsets of TFDS folders; by default $XDG_CACHE_HOME/shardstream or
    ~/.cache/shardstream."""
    strategy: Annotated[StrategyName, tyro.conf.arg(help=STRATEGY_HELP)] = "auto"
    hosts: OptionalStr = None
    """Address and port of every worker, such as a:2222,b:2222; the first one writes the run folder."""
    rank: OptionalInt = None
    """The position of this worker in --hosts, from 0. All other options are the same on every worker."""
    resume: Annotated[bool, tyro.conf.arg(help=RESUME_HELP)] = True
    validation_share: OptionalFloat = None
    """Holds out this fraction of the train split, such as 0.2, for TFDS folders without a validation split."""
    max_bad_records: int = 0
    """How many corrupt records are skipped and listed in bad_records.csv of the run before training ends with an error;
    above 0, every record is decoded once before training starts."""
    save_every: str = "10min"
    """The time or number of steps between checkpoints, such as 10min or 500steps; every epoch ends with one as well."""
    grace: str = "30s"
    """The time to save a checkpoint and exit after SIGTERM, SIGHUP or Ctrl-C."""
    json: bool = False
    """Print the result as one JSON object."""

    def __post_init__(self) -> None:
        hints = get_type_hints(TrainConfig)
        for field in dataclasses.fields(self):
            value = option_value(field.name, hints[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        if (self.run / "metadata.json").is_file():
            raise ConfigError(
                f"--run {self.run} is a dataset; meant `shardstream-train {self.run} --run RUN`?"
            )
        object.__setattr__(self, "model", find_model(self.model))
        for name in ("learning_rate", "fine_tune_learning_rate", "clip_norm"):
            rate = getattr(self, name)
            if rate is not None and not rate > 0:
                raise ConfigError(f"{name} must be positive, got {rate}")
        for name, (least, most) in _RANGES.items():
            _check_range(name, getattr(self, name), least, most)
        if self.warmup_epochs is not None and self.epochs is not None and self.warmup_epochs > self.epochs:
            raise ConfigError(
                f"warmup_epochs {self.warmup_epochs:g} is more than the {self.epochs} epochs there are"
            )
        self._check_weights()
        self._check_fine_tune()
        if self.label_smoothing is not None and not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"label_smoothing must be at least 0 and below 1, got {self.label_smoothing}")
        if self.hosts is not None or self.rank is not None:
            find_cluster(self.hosts, self.rank)
        if self.validation_share is not None and not 0 < self.validation_share < 1:
            raise ConfigError(f"validation_share must be above 0 and below 1, got {self.validation_share}")
        if self.max_bad_records and find_cluster(self.hosts, self.rank).num_workers > 1:
            raise ConfigError(
                "--max-bad-records goes with one process only; repair the dataset, or leave out --hosts and TF_CONFIG"
            )
        parse_interval("save_every", self.save_every)
        parse_secs("grace", self.grace)

    def _check_weights(self) -> None:
        if self.weights != "none" and self.model == AUTO:
            raise ConfigError(
                "weights are of one model, and auto begins with weights of its own; name the --model that they are of"
            )
        if self.weights == "imagenet" and self.model in OWN_MODELS:
            raise ConfigError(
                f"there are no ImageNet weights of {self.model}; choose one of keras.applications"
            )
        if self.weights == "none":
            for name in ("head_epochs", "fine_tune_learning_rate"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"{name} is for a model that begins with --weights, and there are none")
        elif self.head_epochs is not None and self.epochs is not None and self.head_epochs > self.epochs:
            raise ConfigError(
                f"head_epochs {self.head_epochs} is more than the {self.epochs} epochs there are"
            )

    def _check_fine_tune(self) -> None:
        if self.model not in BACKBONES:
            if self.fine_tune is not None:
                raise ConfigError(f"fine_tune is for {', '.join(BACKBONES)}, and the model is {self.model}")
            return
        if self.weights != "none":
            raise ConfigError(
                f"{self.model} has weights already; leave out --weights, or choose another --model"
            )
        if (self.fine_tune or "none") == "none":
            for name, default in gradient_defaults().items():
                if getattr(self, name) != default:
                    raise ConfigError(
                        f"{name} is for training by gradients, and {self.model} is not trained further; give "
                        "--fine-tune last or full, or leave it out"
                    )


def gradient_defaults() -> dict[str, Any]:
    """Returns the options that are for training by gradients alone, with their defaults."""
    return {
        field.name: field.default
        for field in dataclasses.fields(TrainConfig)
        if field.name in _GRADIENT_OPTIONS
    }


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DoctorConfig:
    """Measures the input pipeline and the training step, alone and together, and says what would make training faster.

    It says nothing if no change would. Every cache that fits is measured, on this host only, and no images are left
    behind. Other work on the machine distorts the result.
    """

    data_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """The dataset folder."""
    model: Annotated[str, tyro.conf.arg(metavar="NAME")] = "small"
    """The model whose step is measured, by a name of `shardstream-train --help`."""
    image_size: OptionalInt = None
    """Height and width in pixels that the model sees; by default the stored size, or 300 for original sizes."""
    batch_size: OptionalInt = None
    """Images per step over all devices; by default about 32, or 16 for small with fewer than 1,000 images."""
    precision: Annotated[Precision, tyro.conf.arg(help=PRECISION_HELP)] = "auto"
    cache: Annotated[Cache, tyro.conf.arg(help=CACHE_HELP)] = "auto"
    cache_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The folder of disk caches, whose disk is measured; by default $XDG_CACHE_HOME/shardstream or
    ~/.cache/shardstream."""
    validation_share: OptionalFloat = None
    """As in training: the fraction of the train split to hold out, for TFDS folders without a validation split."""
    strategy: Annotated[Literal["auto", "default", "mirrored"], tyro.conf.arg(help=DEVICES_HELP)] = "auto"
    seconds: float = 2.0
    """The time of a measurement: one of the step, two of each cache."""
    json: bool = False
    """Print one JSON object."""

    def __post_init__(self) -> None:
        if not 0 < self.seconds < float("inf"):
            raise ConfigError(f"seconds must be positive, got {self.seconds}")
        self.train_config()

    def train_config(self) -> TrainConfig:
        """Returns the training that is meant.

        Raises:
            ConfigError: An option has a value that cannot be used.
        """
        names = {field.name for field in dataclasses.fields(TrainConfig)}
        own = {field.name for field in dataclasses.fields(self)}
        return TrainConfig(run=Path("doctor"), **{name: getattr(self, name) for name in own & names})


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StatusConfig:
    """Shows whether a run is running, stopped or finished, its progress and its best epoch."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run folder."""
    json: bool = False
    """Print one JSON object."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """Writes the best model of a run to RUN/export/FORMAT, as a file that other programs can run.

    Its input is uint8 RGB images at the size of the model, its output probabilities; labels.json beside it has the
    class names.

        shardstream-train export runs/first --format tflite
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run folder."""
    format: Literal["savedmodel", "tflite", "onnx", "keras"]
    """The format; onnx needs the packages tf2onnx and onnx: pip install -e '.[onnx]'."""
    quantize: Literal["none", "float16"] = "none"
    """float16 halves a TFLite file; the loss of accuracy is measured on validation images."""
    json: bool = False
    """Print one JSON object."""


def _check_range(name: str, value: float | None, least: float, most: float) -> None:
    if value is None:
        return
    if not value >= least:
        raise ConfigError(f"{name} must be at least {least}, got {value}")
    if value > most:
        raise ConfigError(f"{name} must be at most {most}, got {value}")
