"""`shardstream-train`: trains a model; `doctor` measures, `status` shows a run, `export` writes for other programs."""

import dataclasses
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shardstream.ingest.common.commandline import log_to_stderr, run
from shardstream.ingest.common.terminal import escape_control_chars, json_line
from shardstream.train.config import DoctorConfig, ExportConfig, StatusConfig, TrainConfig
from shardstream.train.distributed.cluster import find_cluster
from shardstream.train.unused_gpu import warn_of_unused_gpu

if TYPE_CHECKING:
    from shardstream.train.runs.result import TrainResult
    from shardstream.train.runs.status import RunStatus

# The default command.
_TRAIN = ""


def run_command(argv: Sequence[str] | None = None) -> int:
    """Runs the command given by `argv` and returns its exit code."""
    commands = {
        _TRAIN: (TrainConfig, train),
        "doctor": (DoctorConfig, doctor),
        "status": (StatusConfig, status),
        "export": (ExportConfig, export),
    }
    return run("shardstream-train", commands, argv, default=_TRAIN)


def train(config: TrainConfig) -> int:
    """Trains, prints the result and returns the exit code."""
    # TensorFlow takes seconds to load: not for --help or a typo, nor for a missing folder.
    _check_folders(config)
    from shardstream.train.startup import start_tensorflow

    start_tensorflow()
    from shardstream.train.run import train_and_evaluate

    log_to_stderr()
    is_chief = find_cluster(config.hosts, config.rank).is_chief
    logging.getLogger("shardstream").setLevel(logging.INFO if is_chief else logging.WARNING)
    warn_of_unused_gpu()
    result = train_and_evaluate(config)
    if not is_chief:
        return 0  # Only the chief prints.
    if config.json:
        print(json_line(dataclasses.asdict(result) | {"run": str(result.run)}))
    else:
        _print_table(result)
    return 0


def doctor(config: DoctorConfig) -> int:
    """Measures, prints the speed of input and training step and what would help, and returns the exit code."""
    # Only this host is measured: no other worker is waiting.
    os.environ.pop("TF_CONFIG", None)
    from shardstream.train.data.folder import load_info

    load_info(
        config.data_dir,
        cache_dir=config.cache_dir,
        validation_share=config.validation_share,
        seed=config.train_config().seed,
    )
    from shardstream.train.startup import start_tensorflow

    start_tensorflow()
    log_to_stderr()
    logging.getLogger("shardstream").setLevel(logging.INFO)
    warn_of_unused_gpu()
    from shardstream.train.profiling.doctor import diagnose, table_lines

    diagnosis = diagnose(config)
    if config.json:
        print(json_line(dataclasses.asdict(diagnosis)))
    else:
        for line in [*table_lines(diagnosis), diagnosis.advice]:
            if line:
                print(escape_control_chars(line))
    return 0


def status(config: StatusConfig) -> int:
    """Prints the progress of a run and returns the exit code."""
    from shardstream.train.runs.status import read_status

    found = read_status(config.run)
    if config.json:
        print(json_line(dataclasses.asdict(found) | {"run": str(found.run)}))
    else:
        _print_status(found)
    return 0


def export(config: ExportConfig) -> int:
    """Exports the model of a run, prints its path and returns the exit code."""
    from shardstream.train.runs.run_folder import RunFolder

    RunFolder(config.run).check_has_model()
    from shardstream.train.startup import start_tensorflow

    start_tensorflow()
    log_to_stderr()
    logging.getLogger("shardstream").setLevel(logging.INFO)
    from shardstream.train.export import export_model

    result = export_model(config.run, format=config.format, quantize=config.quantize)
    if config.json:
        paths = {"path": str(result.path), "description": str(result.description)}
        print(json_line(dataclasses.asdict(result) | paths))
        return 0
    rows = {
        "model": str(result.path),
        "size": f"{result.num_bytes / 1e6:,.2f} MB",
        "classes": str(result.description),
    }
    if result.cost is not None:
        cost = result.cost
        rows["float16"] = (
            f"accuracy {cost.accuracy_quantized:.4f} instead of {cost.accuracy:.4f} on {cost.num_examples:,} "
            f"validation images; probabilities differ by at most {cost.max_difference:.2g}"
        )
    _print_rows(rows)
    return 0


def _check_folders(config: TrainConfig) -> None:
    from shardstream.train.data.folder import load_info
    from shardstream.train.runs.run_folder import RunFolder

    if find_cluster(config.hosts, config.rank).is_chief:
        RunFolder(config.run).check()
    load_info(
        config.data_dir,
        cache_dir=config.cache_dir,
        validation_share=config.validation_share,
        seed=config.seed,
    )


def _print_table(result: "TrainResult") -> None:
    from shardstream.ingest.common.durations import duration

    if not result.best_epoch:
        _print_rows(
            {
                "model": f"{result.model}, a linear head on its features",
                "val_loss": f"{result.val_loss:.4f}",
                "val_accuracy": f"{result.val_accuracy:.4f}",
                "time": duration(result.total_secs),
                "parameters": f"{result.num_parameters:,}",
            }
        )
        print(escape_control_chars(str(result.run)))
        return
    saving, count = result.checkpoint_secs, result.num_checkpoints
    _print_rows(
        {
            "model": result.model,
            "best epoch": f"{result.best_epoch} of {result.epochs}",
            "val_loss": f"{result.val_loss:.4f}",
            "val_accuracy": f"{result.val_accuracy:.4f}",
            "time": f"{duration(result.total_secs)}, {duration(result.epoch_secs)} of training an epoch",
            "rate": _rate(result.images_per_sec, result.images_per_sec_per_core, result.input_wait),
            "checkpoints": f"{count}, {1000 * saving / max(1, count):,.0f} ms each, "
            f"{100 * saving / result.total_secs:.1f} % of the time",
            "parameters": f"{result.num_parameters:,}",
        }
    )
    print(escape_control_chars(str(result.run)))


def _print_status(found: "RunStatus") -> None:
    from shardstream.ingest.common.durations import duration

    rows = {"run": found.condition}
    if found.process:
        rows["run"] += f", process {found.process.pid} on {found.process.host}"
    if found.condition == "finished" and not found.epoch:
        rows["trained"] = "a linear head on the features of a pretrained model"
    else:
        rows["epochs"] = f"{found.epoch} of {found.epochs}"
    if found.step:
        rows["epochs"] += f", and {found.step} of {found.steps_per_epoch} steps"
    if found.checkpoint_age_secs is not None:
        rows["saved"] = f"{duration(found.checkpoint_age_secs)} ago"
    if found.best_epoch is not None:
        epoch = f"epoch {found.best_epoch}, " if found.best_epoch else ""
        rows["best" if found.condition == "finished" else "best so far"] = (
            f"{epoch}val_loss {found.best_val_loss:.4f}, val_accuracy {found.best_val_accuracy:.4f}"
        )
    if found.rate:
        rows["rate"] = _rate(*dataclasses.astuple(found.rate))
    if found.condition != "finished" and found.secs_left is not None:
        rows["left"] = f"about {duration(found.secs_left)} from there"
    _print_rows(rows)


def _rate(images_per_sec: float, per_core: float, input_wait: float) -> str:
    return f"{images_per_sec:,.0f} img/s ({per_core:,.0f} a core), {input_wait:.0%} of the time waiting for input"


def _print_rows(rows: dict[str, str]) -> None:
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {escape_control_chars(value)}")
