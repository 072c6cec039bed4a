"""The options of `shardstream-train`, checked as soon as they are given."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

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
    WEIGHTS_HELP,
)

Cache = Literal["auto", "none", "memory", "disk"]
OptionalStr = Annotated[str | None, tyro.conf.arg(metavar="STR", help_behavior_hint="")]
ClassWeight = Literal["none", "balanced"]
OptionalInt = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
OptionalSchedule = Annotated[
    ScheduleName | None, tyro.conf.arg(metavar="cosine|constant", help_behavior_hint="")
]
OptionalFloat = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")]

# NumPy's and Keras's generators take no more.
_MAX_SEED = 2**32 - 1
# What the weights and their optimizer are calculated in.
_MAX_FLOAT32 = 3.4e38
# Each step of a call is traced of its own: 7 of `small` take 30 s on 2 cores.
_MAX_STEPS_PER_EXECUTION = 1000

# What goes with training by gradients alone.
_GRADIENT_OPTIONS = (
    *(
        "epochs",
        "batch_size",
        "learning_rate",
        "weight_decay",
        "label_smoothing",
        "augmentation",
        "mixup",
        "cutmix",
    ),
    *("flip", "schedule", "warmup_epochs", "clip_norm", "early_stopping", "steps_per_execution"),
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Trains a classifier on a dataset folder and keeps the best model in a run folder."""

    data_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """The dataset folder that `shardstream-ingest build` made."""
    run: Path
    """The run folder to make, for example runs/first."""
    model: Annotated[str, tyro.conf.arg(metavar="NAME", help=MODEL_HELP)] = AUTO
    fine_tune: Annotated[
        FineTune | None, tyro.conf.arg(metavar="none|last|full", help=FINE_TUNE_HELP, help_behavior_hint="")
    ] = None
    weights: Annotated[str, tyro.conf.arg(metavar="none|imagenet|PATH", help=WEIGHTS_HELP)] = "none"
    head_epochs: OptionalInt = None
    """With --weights: epochs that train the last layer alone; by default a quarter of all."""
    fine_tune_learning_rate: OptionalFloat = None
    """With --weights: the highest learning rate of the epochs after those; by default 0.00001."""
    image_size: OptionalInt = None
    """Height and width in pixels that the model sees; by default the stored size, or 300 for originals."""
    batch_size: OptionalInt = None
    """Pictures per step, over all devices; by default about 32, and 16 for small on fewer than 1,000 pictures."""
    epochs: OptionalInt = None
    """Passes over the training split; by default 20, up to 50 where those make few steps, and up to 100 for small."""
    seed: int = 123
    """Of the weights, the order of the pictures, the augmentation and the dropout."""
    learning_rate: OptionalFloat = None
    """The highest learning rate; by default the model's own: 0.002 for small, 0.001 for others."""
    weight_decay: OptionalFloat = None
    """Decoupled weight decay (AdamW); by default 0.02, none for notebook."""
    label_smoothing: OptionalFloat = None
    """Share of each target that is spread over all classes; by default 0.1, 0 for notebook, lite0, lite1 and lite2."""
    augmentation: Annotated[AugmentationName, tyro.conf.arg(help=AUGMENTATION_HELP)] = "default"
    flip: bool = True
    """Whether the augmentation mirrors pictures left to right; --no-flip where that makes something else of them."""
    mixup: float = 0.0
    """The alpha of MixUp, for example 0.2, which blends two pictures and their classes; 0 for none."""
    cutmix: float = 0.0
    """The alpha of CutMix, for example 1, which puts a part of a picture into another; 0 for none."""
    schedule: OptionalSchedule = None
    """How the learning rate goes on after its warm-up; by default cosine, constant for notebook."""
    warmup_epochs: OptionalFloat = None
    """Epochs in which the learning rate rises from 0; by default a tenth of all, five at most, none for notebook."""
    clip_norm: OptionalFloat = None
    """The highest norm that the gradients of a step may have together; by default any."""
    class_weight: ClassWeight = "none"
    """balanced: each class counts the same in the loss, however many pictures it has."""
    early_stopping: OptionalInt = None
    """Ends training when val_loss has not reached a new low for so many epochs."""
    steps_per_execution: int = 1
    """Trainer in one call: less of Python's time, but signals, saving and checks wait for the end of a call."""
    jit_compile: Annotated[JitCompile, tyro.conf.arg(help=JIT_HELP)] = "auto"
    deterministic: bool = False
    """The same weights, bit for bit, for the same seed on the same device; slower on a GPU."""
    precision: Annotated[Precision, tyro.conf.arg(help=PRECISION_HELP)] = "auto"
    cache: Annotated[Cache, tyro.conf.arg(help=CACHE_HELP)] = "auto"
    cache_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """For --cache disk, and the places of records of other people's datasets; by default $XDG_CACHE_HOME/shardstream or
    ~/.cache/shardstream."""
    strategy: Annotated[StrategyName, tyro.conf.arg(help=STRATEGY_HELP)] = "auto"
    hosts: OptionalStr = None
    """Address and port of each of several workers, such as a:2222,b:2222; the first writes the run folder."""
    rank: OptionalInt = None
    """Which of --hosts this process is, from 0 on. All get the same options but for this one."""
    resume: Annotated[bool, tyro.conf.arg(help=RESUME_HELP)] = True
    validation_share: OptionalFloat = None
    """Holds out this fraction of the train split, for datasets of others that have a train split alone, such as 0.2."""
    max_bad_records: int = 0
    """How many records that cannot be read are left out and named in bad_records.csv of the run, instead of ending the
    training; from 1 on, every record is read and decoded once before the training begins."""
    save_every: str = "10min"
    """How often the state is saved to go on from, such as 10min or 500steps; at the end of an epoch it is too."""
    grace: str = "30s"
    """After SIGTERM, SIGHUP or Ctrl-C: the time to save the state and leave."""
    json: bool = False
    """Prints the result as one JSON object."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(TrainConfig).items():
            object.__setattr__(self, name, option_value(name, hint, getattr(self, name)))
        if (self.run / "metadata.json").is_file():
            raise ConfigError(
                f"--run {self.run} is a dataset; meant `shardstream-train {self.run} --run RUN`?"
            )
        object.__setattr__(self, "model", find_model(self.model))
        _check_at_least(1, image_size=self.image_size, batch_size=self.batch_size, epochs=self.epochs)
        _check_at_least(1, early_stopping=self.early_stopping, steps_per_execution=self.steps_per_execution)
        _check_at_least(
            0,
            seed=self.seed,
            weight_decay=self.weight_decay,
            head_epochs=self.head_epochs,
            warmup_epochs=self.warmup_epochs,
        )
        # Four halvings in `small`, and two in `notebook`, have to leave something.
        _check_at_least(8, image_size=self.image_size)
        _check_at_most(MAX_IMAGE_SIZE, image_size=self.image_size)
        _check_at_most(_MAX_SEED, seed=self.seed)
        _check_at_most(_MAX_STEPS_PER_EXECUTION, steps_per_execution=self.steps_per_execution)
        numbers = ("learning_rate", "fine_tune_learning_rate", "clip_norm", "weight_decay", "warmup_epochs")
        _check_at_most(_MAX_FLOAT32, **{name: getattr(self, name) for name in numbers})
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        for name in ("learning_rate", "fine_tune_learning_rate", "clip_norm"):
            rate = getattr(self, name)
            if rate is not None and not rate > 0:
                raise ConfigError(f"{name} must be positive, got {rate}")
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
        _check_at_least(0, max_bad_records=self.max_bad_records)
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
    """Measures how fast input and step of a training are, alone and together, with each cache that fits.

    One host is measured, whatever TF_CONFIG says, and nothing is left behind. Other work on the machine slows all.
    """

    data_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """The dataset folder."""
    model: Annotated[str, tyro.conf.arg(metavar="NAME", help=MODEL_HELP)] = "small"
    image_size: OptionalInt = None
    """Height and width in pixels that the model sees; by default the stored size, or 300 for originals."""
    batch_size: OptionalInt = None
    """Pictures per step, over all devices; by default about 32, and 16 for small on fewer than 1,000 pictures."""
    precision: Annotated[Precision, tyro.conf.arg(help=PRECISION_HELP)] = "auto"
    cache: Annotated[Cache, tyro.conf.arg(help=CACHE_HELP)] = "auto"
    cache_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """The folder of disk caches, whose disk is measured; by default $XDG_CACHE_HOME/shardstream or
    ~/.cache/shardstream."""
    validation_share: OptionalFloat = None
    """As in training, for datasets of others that have a train split alone."""
    strategy: Annotated[Literal["auto", "default", "mirrored"], tyro.conf.arg(help=DEVICES_HELP)] = "auto"
    seconds: float = 2.0
    """How long each measurement takes: one of the step, two of each cache, which start half as long before."""
    json: bool = False
    """Prints one JSON object."""

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
    """Shows how far a run is, whether it is at work or was stopped."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run folder."""
    json: bool = False
    """Prints one JSON object."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """Writes the best model of a run as a file that other programs run, to RUN/export/FORMAT.

    It takes uint8 RGB images at the size of the model and gives probabilities; labels.json beside it has the classes.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run folder."""
    format: Literal["savedmodel", "tflite", "onnx", "keras"]
    """What to write; onnx needs the packages tf2onnx and onnx."""
    quantize: Literal["none", "float16"] = "none"
    """float16 halves a TFLite file; what it costs is measured on validation images."""
    json: bool = False
    """Prints one JSON object."""


def _check_at_least(least: int, **options: float | None) -> None:
    for name, value in options.items():
        if value is not None and not value >= least:
            raise ConfigError(f"{name} must be at least {least}, got {value}")


def _check_at_most(most: float, **options: float | None) -> None:
    for name, value in options.items():
        if value is not None and value > most:
            raise ConfigError(f"{name} must be at most {most}, got {value}")
