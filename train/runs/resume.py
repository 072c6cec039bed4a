"""Going on with an unfinished run: is it the same run?"""

import dataclasses
import json
import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.common.safe_files import parse_errors, read_regular
from shardstream.train.data.sampling import ORDER_VERSION
from shardstream.train.distributed.cluster import JitCompile, Precision
from shardstream.train.models.registry import AUTO_BACKBONE, AUTO_TRAINED, find_model
from shardstream.train.runs.best_epoch import FORMER_BEST_BY, BestBy
from shardstream.train.runs.checkpoint import Checkpoint, Checkpoints
from shardstream.train.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

logger = logging.getLogger(__name__)

Config = TypeVar("Config", bound="DataclassInstance")

# What config.json says that may change in the middle of a run: where things are, and what follows from other options.
_FREE = {
    *("data_dir", "run", "json", "resume", "save_every", "grace", "strategy", "versions"),
    # The order of the examples is the same whatever the cache.
    *("hosts", "rank", "cache", "cache_dir"),
    *("most_epochs", "least_steps", "batch_size_of_few", "steps_per_epoch"),
    "best_by",
}
# What runs were that began before config.json said it.
_BEFORE = {"model": "small", "fine_tune": None, "flip": True, "candidates": [], "best_by": FORMER_BEST_BY}
_NAMES = {
    "num_replicas": "the number of devices",
    "num_workers": "the number of workers",
    "dataset_fingerprint": "the fingerprint of the dataset",
}


@dataclasses.dataclass(frozen=True, slots=True)
class ResumableRun:
    """A run that can be gone on with: what config.json says, and its last state."""

    options: Mapping[str, Any]
    checkpoint: Checkpoint

    def resolve(self, config: Config) -> Config:
        """Returns `config` with what the run decided where `config` leaves it open."""
        return resolve(config, self.options)

    def check_same(self, folder: RunFolder, options: Mapping[str, Any]) -> None:
        """Ensures that `options`, which config.json would say now, are those of the run.

        The number of epochs is one of them: the learning rate of each step depends on how many come.

        Raises:
            ConfigError: They are not.
        """
        if changed := differences(self.options, options):
            raise ConfigError(
                f"{folder.path}: holds an unfinished run of other options: {'; '.join(changed)}. Give the same options "
                "to go on with it, --no-resume to throw it away, or another --run"
            )
        if (before := self.options["versions"]) != options["versions"]:
            logger.warning(
                "this run began with other versions (%s): it goes on, but perhaps not to the same bits",
                ", ".join(f"{name} {version}" for name, version in before.items()),
            )


def resolve(config: Config, options: Mapping[str, Any]) -> Config:
    """Returns `config` with what `options` say where it says `auto`."""
    names = ("model", "precision", "jit_compile")
    decided = {name: options[name] for name in names if getattr(config, name) == "auto"}
    return dataclasses.replace(config, **decided)


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], *, also: Collection[str] = ()
) -> list[str]:
    """Returns in words where two descriptions of a run differ that have to be the same, `also` in what may change."""
    now = json.loads(json.dumps(now))
    return [
        f"{_NAMES.get(name, '--' + name.replace('_', '-'))} was {before.get(name)}, now {now.get(name)}"
        for name in {**before, **now}
        if (name not in _FREE or name in also) and before.get(name) != now.get(name)
    ]


def find_resumable(folder: RunFolder, checkpoints: Checkpoints) -> ResumableRun | None:
    """Returns the run to go on with, or None where there is none or it never got as far as a checkpoint.

    Raises:
        ConfigError: There is one, and its examples came in another order.
        DatasetError: There is one, but its files are corrupt.
    """
    if not folder.is_unfinished or not (checkpoint := checkpoints.latest()):
        return None
    with parse_errors(folder.config, "so it cannot be resumed; --no-resume starts over"):
        options = _BEFORE | dict(json.loads(read_regular(folder.config)))
        # A run that began before the model had its name.
        options["model"] = find_model(str(options["model"]))
        _check_decided(options)
    # Before anything else is asked: such a run lacks other options, too.
    if options.get("order_version") != ORDER_VERSION:
        raise ConfigError(
            f"{folder.path}: holds an unfinished run whose examples came in the order of another version of "
            "shardstream; finish it with that version, or give --no-resume to throw it away, or another --run"
        )
    with parse_errors(folder.checkpoints, "--no-resume starts over"):
        _check_fits(checkpoint, options)
    return ResumableRun(options, checkpoint)


def _check_decided(options: Mapping[str, Any]) -> None:
    """Checks what a run takes from its config.json and not from the command."""
    known = {
        "candidates": isinstance(options["candidates"], list)
        and {*options["candidates"]} <= {AUTO_BACKBONE, AUTO_TRAINED},
        "best_by": options["best_by"] in get_args(BestBy),
        "precision": options["precision"] in get_args(Precision),
        "jit_compile": options["jit_compile"] in get_args(JitCompile),
        "versions": isinstance(options["versions"], dict),
    }
    if odd := [name for name, is_known in known.items() if not is_known]:
        raise ValueError(f"{odd[0]} is {str(options[odd[0]])[:80]!r}")


def _check_fits(checkpoint: Checkpoint, options: Mapping[str, Any]) -> None:
    """Checks that the last state is one that a run of these options can have."""
    position, epochs, steps = checkpoint.position, int(options["epochs"]), int(options["steps_per_epoch"])
    # The last step of an epoch is saved before the epoch is evaluated.
    if position.epoch > epochs or position.step > steps:
        raise ValueError(f"the last state is of {position}, and the run has {epochs} epochs of {steps} steps")
    if position.epoch > len(checkpoint.history):
        raise ValueError("the last state has epochs without figures")
    if any(not {"epoch", "val_loss", "val_accuracy"} <= row.keys() for row in checkpoint.history):
        raise ValueError("the figures of an epoch lack val_loss or val_accuracy")
