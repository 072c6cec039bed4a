"""Resumes an unfinished run, after checking that it is the same run."""

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

# Keys of config.json that may change on resume: locations, and values that follow from other options.
_FREE = {
    *("data_dir", "run", "json", "resume", "save_every", "grace", "strategy", "versions"),
    # The order of the examples is independent of the cache.
    *("hosts", "rank", "cache", "cache_dir"),
    *("most_epochs", "least_steps", "batch_size_of_few", "steps_per_epoch"),
    "best_by",
}
# Values of runs that started before config.json recorded them.
_BEFORE = {"model": "small", "fine_tune": None, "flip": True, "candidates": [], "best_by": FORMER_BEST_BY}
_NAMES = {
    "num_replicas": "the number of devices",
    "num_workers": "the number of workers",
    "dataset_fingerprint": "the fingerprint of the dataset",
}


@dataclasses.dataclass(frozen=True, slots=True)
class ResumableRun:
    """A run that can be resumed: its config.json, and its last state."""

    options: Mapping[str, Any]
    checkpoint: Checkpoint

    def resolve(self, config: Config) -> Config:
        """Returns `config` with its open options as resolved by the run."""
        return resolve(config, self.options)

    def check_same(self, folder: RunFolder, options: Mapping[str, Any]) -> None:
        """Ensures that `options`, which would go into config.json now, equal those of the run.

        The number of epochs is one of them: the learning rate of each step depends on the total.

        Raises:
            ConfigError: They differ.
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
    """Returns `config` with `auto` replaced by the values of `options`."""
    names = ("model", "precision", "jit_compile")
    decided = {name: options[name] for name in names if getattr(config, name) == "auto"}
    return dataclasses.replace(config, **decided)


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], *, also: Collection[str] = ()
) -> list[str]:
    """Returns the differences between two descriptions of a run, in words; keys in `also` may differ."""
    now = json.loads(json.dumps(now))
    return [
        f"{_NAMES.get(name, '--' + name.replace('_', '-'))} was {before.get(name)}, now {now.get(name)}"
        for name in {**before, **now}
        if (name not in _FREE or name in also) and before.get(name) != now.get(name)
    ]


def find_resumable(folder: RunFolder, checkpoints: Checkpoints) -> ResumableRun | None:
    """Returns the run to resume, or None if there is none or it has no checkpoint yet.

    Raises:
        ConfigError: There is one, but its examples had another order.
        DatasetError: There is one, but its files are corrupt.
    """
    if not folder.is_unfinished or not (checkpoint := checkpoints.latest()):
        return None
    with parse_errors(folder.config, "so it cannot be resumed; --no-resume starts over"):
        options = _BEFORE | dict(json.loads(read_regular(folder.config)))
        # Runs from before the model got its name.
        options["model"] = find_model(str(options["model"]))
        _check_decided(options)
    # First of all checks: such a run lacks other options, too.
    if options.get("order_version") != ORDER_VERSION:
        raise ConfigError(
            f"{folder.path}: holds an unfinished run whose examples came in the order of another version of "
            "shardstream; finish it with that version, or give --no-resume to throw it away, or another --run"
        )
    with parse_errors(folder.checkpoints, "--no-resume starts over"):
        _check_fits(checkpoint, options)
    return ResumableRun(options, checkpoint)


def _check_decided(options: Mapping[str, Any]) -> None:
    """Checks the options that a run takes from its config.json instead of the command."""
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
    """Checks that the last state is possible for a run with these options."""
    position, epochs, steps = checkpoint.position, int(options["epochs"]), int(options["steps_per_epoch"])
    # The last step of an epoch is saved before its evaluation.
    if position.epoch > epochs or position.step > steps:
        raise ValueError(f"the last state is of {position}, and the run has {epochs} epochs of {steps} steps")
    if position.epoch > len(checkpoint.history):
        raise ValueError("the last state has epochs without figures")
    if any(not {"epoch", "val_loss", "val_accuracy"} <= row.keys() for row in checkpoint.history):
        raise ValueError("the figures of an epoch lack val_loss or val_accuracy")
