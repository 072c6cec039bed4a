"""`shardstream-train`: a dataset folder in, a trained model and its run folder out."""

import dataclasses
import json
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ingest.commandline import run
from train.config import TrainConfig

if TYPE_CHECKING:
    from train.run import TrainResult

# The command that is meant where none is named; as its name is empty, a dataset folder may have any.
_TRAIN = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` names and returns its exit code."""
    return run("shardstream-train", {_TRAIN: (TrainConfig, train)}, argv, default=_TRAIN)


def train(config: TrainConfig) -> int:
    """Trains, prints what came of it and returns the exit code."""
    # TensorFlow takes seconds to load: not for --help or a typo, nor for a folder that is not there.
    _check_folders(config)
    from train.startup import start_tensorflow

    start_tensorflow()
    from train.run import train_and_evaluate

    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("train").setLevel(logging.INFO)
    result = train_and_evaluate(config)
    if config.json:
        print(json.dumps(dataclasses.asdict(result) | {"run": str(result.run)}, ensure_ascii=False))
    else:
        _print_table(result)
    return 0


def _check_folders(config: TrainConfig) -> None:
    from ingest.metadata import DatasetInfo
    from train.run_folder import RunFolder

    RunFolder(config.run).check()
    DatasetInfo.load(config.data_dir)


def _print_table(result: "TrainResult") -> None:
    from train.durations import duration

    rows = {
        "best epoch": f"{result.best_epoch} of {result.epochs}",
        "val_loss": f"{result.val_loss:.4f}",
        "val_accuracy": f"{result.val_accuracy:.4f}",
        "time": f"{duration(result.total_secs)}, {duration(result.epoch_secs)} of training an epoch",
        "rate": f"{result.images_per_sec:,.0f} img/s",
        "parameters": f"{result.num_parameters:,}",
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")
    print(result.run)


if __name__ == "__main__":
    sys.exit(main())
