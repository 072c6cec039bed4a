"""The options of `shardstream-train`, checked as soon as they are given."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ingest.errors import ConfigError
from ingest.sizes import parse_size
from train.cluster import find_cluster
from train.durations import parse_interval, parse_secs

ModelName = Literal["small", "seed"]
Precision = Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"]
Cache = Literal["auto", "none", "memory", "disk", "device"]
StrategyName = Literal["auto", "default", "mirrored", "multiworker"]
OptionalStr = Annotated[str | None, tyro.conf.arg(metavar="STR", help_behavior_hint="")]
OptionalInt = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
OptionalFloat = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")]

# Not docstrings of the fields: there each line break would show.
_MODEL_HELP = (
    "small: a compact residual network, 0.3 million parameters, trained with augmentation. seed: the layers of "
    "the notebook this project grew from. Its first one, Dense(1024) on every pixel, makes the convolution after "
    "it read 1024 channels: 106 of its 108 GFLOP for one picture of 300x300, where small takes 0.5, and 0.7 GB "
    "of activations for each picture of a batch."
)
_PRECISION_HELP = (
    "What the layers calculate in. auto: float32 on a CPU, mixed_bfloat16 on GPUs of compute capability 8.0 and "
    "up, mixed_float16 on those of 7.x. The saved models are float32 always."
)
_CACHE_HELP = (
    "Where decoded pictures are kept from the first epoch on, as uint8. none: nowhere, they are decoded in every "
    "epoch. memory. disk: a file in --cache-dir that later runs on the same dataset use too. device: the memory of "
    "each GPU, so that nothing but numbers crosses the bus. auto: the first that fits of device (where there is a "
    "GPU), memory, disk and none, containers' limits and the model's needs respected."
)
_STRATEGY_HELP = (
    "default: one device. mirrored: all visible GPUs, each batch split evenly. multiworker: all GPUs of all hosts. "
    "auto: multiworker if --hosts or TF_CONFIG names several, mirrored if there are several GPUs."
)
_RESUME_HELP = (
    "Goes on with an unfinished run of the same options in the run folder, from its last state and to the same "
    "result as if it had never been stopped. --no-resume throws that run away and begins anew."
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Trains a classifier on a dataset folder and keeps the best model in a run folder."""

    data_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """The dataset folder that `shardstream-ingest build` made."""
    run: Path
    """The run folder to make, for example runs/first."""
    model: Annotated[ModelName, tyro.conf.arg(help=_MODEL_HELP)] = "small"
    image_size: OptionalInt = None
    """Height and width in pixels that the model sees; by default the stored size, or 300 for originals."""
    batch_size: int = 32
    """Pictures per step, over all devices together."""
    epochs: OptionalInt = None
    """Passes over the training split; by default 20, and for small up to 50 where 20 make under 1,000 steps."""
    seed: int = 123
    """Of the weights, the order of the pictures, the augmentation and the dropout."""
    learning_rate: OptionalFloat = None
    """The highest learning rate; by default the model's own: 0.002 for small, 0.001 for seed."""
    weight_decay: OptionalFloat = None
    """Decoupled weight decay (AdamW); by default the model's own: 0.02 for small, none for seed."""
    label_smoothing: OptionalFloat = None
    """Share of each target that is spread over all classes; by default 0.1 for small, 0 for seed."""
    precision: Annotated[Precision, tyro.conf.arg(help=_PRECISION_HELP)] = "auto"
    cache: Annotated[Cache, tyro.conf.arg(help=_CACHE_HELP)] = "auto"
    cache_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """For --cache disk; by default $XDG_CACHE_HOME/shardstream or ~/.cache/shardstream."""
    cache_limit: Annotated[str | None, tyro.conf.arg(metavar="SIZE", help_behavior_hint="")] = None
    """The most that may be in --cache-dir, such as 50GB: files that were not used for the longest time go first."""
    strategy: Annotated[StrategyName, tyro.conf.arg(help=_STRATEGY_HELP)] = "auto"
    hosts: OptionalStr = None
    """Address and port of each of several workers, such as a:2222,b:2222; the first writes the run folder."""
    rank: OptionalInt = None
    """Which of --hosts this process is, from 0 on. All get the same options but for this one."""
    resume: Annotated[bool, tyro.conf.arg(help=_RESUME_HELP)] = True
    max_bad_records: int = 0
    """How many records that cannot be read are left out and named in bad_records.csv of the run, instead of ending the
    training; from 1 on, every record is read and decoded once before the training begins."""
    save_every: str = "10min"
    """How often the state is saved to go on from, such as 10min or 500steps; at the end of an epoch it is too."""
    grace: str = "30s"
    """After SIGTERM or Ctrl-C: the time to save the state and leave."""
    json: bool = False
    """Prints the result as one JSON object."""

    def __post_init__(self) -> None:
        _check_at_least(1, image_size=self.image_size, batch_size=self.batch_size, epochs=self.epochs)
        _check_at_least(0, seed=self.seed, weight_decay=self.weight_decay)
        if self.image_size is not None and self.image_size < 8:
            # Four halvings in `small`, and two in `seed`, have to leave something.
            raise ConfigError(f"image_size must be at least 8, got {self.image_size}")
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise ConfigError(f"learning_rate must be positive, got {self.learning_rate}")
        if self.label_smoothing is not None and not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"label_smoothing must be at least 0 and below 1, got {self.label_smoothing}")
        if self.hosts is not None or self.rank is not None:
            find_cluster(self.hosts, self.rank)
        if self.cache_limit is not None:
            parse_size("--cache-limit", self.cache_limit)
        _check_at_least(0, max_bad_records=self.max_bad_records)
        if self.max_bad_records and self.hosts:
            raise ConfigError(
                "max_bad_records goes with one process only; mend the dataset, or leave out --hosts"
            )
        parse_interval("save_every", self.save_every)
        parse_secs("grace", self.grace)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DoctorConfig:
    """Measures each part of a training alone and the whole, names what limits it, and what would help by how much.

    Nothing is left behind. On a machine with other work the figures are those of what is left of it.
    """

    data_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """The dataset folder."""
    model: Annotated[ModelName, tyro.conf.arg(help=_MODEL_HELP)] = "small"
    image_size: OptionalInt = None
    """Height and width in pixels that the model sees; by default the stored size, or 300 for originals."""
    batch_size: int = 32
    """Pictures per step, over all devices together."""
    precision: Annotated[Precision, tyro.conf.arg(help=_PRECISION_HELP)] = "auto"
    cache: Annotated[Cache, tyro.conf.arg(help=_CACHE_HELP)] = "auto"
    strategy: Annotated[StrategyName, tyro.conf.arg(help=_STRATEGY_HELP)] = "auto"
    seconds: float = 2.0
    """For how long each of about a dozen measurements goes on."""
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


def _check_at_least(least: int, **options: float | None) -> None:
    for name, value in options.items():
        if value is not None and not value >= least:
            raise ConfigError(f"{name} must be at least {least}, got {value}")
