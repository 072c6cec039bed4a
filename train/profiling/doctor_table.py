"""What `doctor` prints: tables for people, a dictionary for machines."""

import dataclasses
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from shardstream.ingest.common.terminal import escape_control_chars
from shardstream.train.profiling.diagnosis import Diagnosis, Measurements


def print_diagnosis(found: Measurements, diagnosis: Diagnosis) -> None:
    """Prints the parts, the whole, what limits it, and what would help."""
    console = Console()
    console.print(_stages(found))
    console.print(_modes(found))
    _say(console, diagnosis.bottleneck)
    for advice in diagnosis.advice:
        _say(console, f"{advice.setting}: about {advice.gain:.1f} times as fast; {advice.why}")
    if diagnosis.otherwise:
        _say(console, diagnosis.otherwise)


def as_dict(found: Measurements, diagnosis: Diagnosis) -> dict[str, Any]:
    """Returns all of it."""
    stages = {
        kind: [dataclasses.asdict(stage) | {"share": found.share(stage)} for stage in getattr(found, kind)]
        for kind in ("input_stages", "device_stages")
    }
    measured = dataclasses.asdict(found) | {"data_dir": str(found.data_dir)} | stages
    return measured | dataclasses.asdict(diagnosis)


def _stages(found: Measurements) -> Table:
    table = _table("each part alone", "img/s", "core ms", "share")
    for stage in found.stages:
        table.add_row(
            stage.name,
            f"{stage.images_per_sec:,.0f}",
            f"{stage.core_ms:.3f}",
            f"{found.share(stage):.1%}",
        )
    return table


def _modes(found: Measurements) -> Table:
    table = _table("the whole, from the second epoch on", "input alone, img/s", "training, img/s", "waits")
    for mode in found.modes:
        name = f"--cache {mode.cache}" + " (as chosen)" * (mode.cache == found.cache)
        if mode.unfit:
            table.add_row(f"{name}: {mode.unfit}", "", "", "")
        else:
            table.add_row(
                name,
                f"{mode.input_images_per_sec:,.0f}",
                f"{mode.images_per_sec:,.0f}",
                f"{mode.input_wait:.0%}",
            )
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(first, box=box.SIMPLE_HEAD)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _say(console: Console, sentence: str) -> None:
    console.print(escape_control_chars(sentence), markup=False, highlight=False, soft_wrap=True)
