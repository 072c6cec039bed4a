"""shardstream-ingest: category folders in, sharded TFRecords out."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

# Before NumPy is imported: its thread pool reserves address space that is not needed here.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from shardstream.ingest.commands.config import (
    BuildConfig,
    InfoConfig,
    RepairConfig,
    UpdateConfig,
    VerifyConfig,
)
from shardstream.ingest.common import commandline
from shardstream.ingest.common.memory_limits import use_one_arena
from shardstream.ingest.common.terminal import json_line

if TYPE_CHECKING:
    from shardstream.ingest.commands.estimate import Estimate
    from shardstream.ingest.pipeline.build_result import BuildResult


def run_command(argv: Sequence[str] | None = None) -> int:
    """Runs the command in `argv` and returns its exit code."""
    commands = {
        "build": (BuildConfig, _build),
        "update": (UpdateConfig, _update),
        "verify": (VerifyConfig, _verify),
        "repair": (RepairConfig, _repair),
        "info": (InfoConfig, _info),
    }
    commandline.log_to_stderr()
    use_one_arena()
    return commandline.run("shardstream-ingest", commands, argv, description=__doc__ or "")


def _build(config: BuildConfig) -> int:
    if config.dry_run:
        from shardstream.ingest.commands.estimate import estimate_build

        return _foretell(estimate_build(config), as_json=config.json)
    from shardstream.ingest.commands.build import build_dataset

    return _say(build_dataset(config), as_json=config.json)


def _update(config: UpdateConfig) -> int:
    if config.dry_run:
        from shardstream.ingest.commands.estimate import estimate_update

        return _foretell(estimate_update(config), as_json=config.json)
    from shardstream.ingest.commands.update import update_dataset

    return _say(update_dataset(config), as_json=config.json)


def _say(outcome: "BuildResult", *, as_json: bool) -> int:
    from shardstream.ingest.commands import console as tables

    if as_json:
        print(json_line(tables.outcome_json(outcome)))
    else:
        tables.print_outcome(outcome)
    return 0


def _foretell(estimate: "Estimate", *, as_json: bool) -> int:
    import dataclasses

    from shardstream.ingest.commands import console as tables

    if as_json:
        print(json_line(dataclasses.asdict(estimate)))
    else:
        tables.print_estimate(estimate)
    return 0


def _verify(config: VerifyConfig) -> int:
    import dataclasses

    from shardstream.ingest.commands import console as tables
    from shardstream.ingest.commands.verify import verify_dataset

    damages = verify_dataset(config.data, deep=config.deep, workers=config.workers)
    if config.json:
        print(json_line({"damages": [dataclasses.asdict(damage) for damage in damages]}))
    else:
        tables.print_damages(damages, config.data)
    return 1 if damages else 0


def _repair(config: RepairConfig) -> int:
    import dataclasses

    from shardstream.ingest.commands import console as tables
    from shardstream.ingest.commands.repair import repair_dataset

    repairs = repair_dataset(config)
    if config.json:
        print(json_line({"repairs": [dataclasses.asdict(repair) for repair in repairs]}))
    else:
        tables.print_repairs(repairs, config.data)
    return 0 if all(repair.is_mended for repair in repairs) else 1


def _info(config: InfoConfig) -> int:
    from shardstream.ingest.commands import console as tables
    from shardstream.ingest.dataset.metadata import DatasetInfo
    from shardstream.ingest.pipeline.diagnostics import look_through_manifest

    info = DatasetInfo.load(config.data)
    findings = look_through_manifest(info)
    if config.json:
        print(json_line(tables.info_json(info, findings)))
    else:
        tables.print_info(info, findings)
    return 0
