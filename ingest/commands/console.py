"""Output of the commands: tables for the terminal, dictionaries for JSON."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shardstream.ingest.commands.estimate import Estimate
from shardstream.ingest.commands.repair import Repair
from shardstream.ingest.common.byte_size import format_size
from shardstream.ingest.common.terminal import escape_control_chars
from shardstream.ingest.dataset.corruption import Corruption
from shardstream.ingest.dataset.look_alikes import LookAlikes, PathPair
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.pipeline.build_result import BuildResult
from shardstream.ingest.pipeline.changes import Changes
from shardstream.ingest.pipeline.diagnostics import Findings

_MAX_LEAKS_SHOWN = 10
_MAX_CLASSES_SHOWN = 100  # Laying out a table of ten thousand classes takes longer than the build.


def print_outcome(result: BuildResult) -> None:
    """Prints the result of a build or an update."""
    console = Console()
    _print_info(result.info, console)
    _print_findings(result.findings, console)
    if result.passed_over:
        console.print(_counts("skipped", result.passed_over))
    if result.changes is not None:
        _print_changes(result.changes, console)
        written = f"{result.num_shards_written:,} of {len(result.info.shards):,} shards"
        _print_line(f"{written} written, the others are as they were", console)
    num_files = sum(result.info.verdicts.values())
    console.print(
        f"{num_files:,} files, {result.num_read:,} of them read, {format_size(result.source_bytes)}, in "
        f"{result.seconds:.1f} s: {num_files / result.seconds:,.0f} files/s, "
        f"{format_size(result.source_bytes / result.seconds)}/s",
        highlight=False,
    )
    console.print(
        f"dataset: {escape_control_chars(str(result.info.data_dir))}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _print_changes(changes: Changes, console: Console) -> None:
    counts = (
        f"{changes.num_new:,} new, {changes.num_changed:,} changed, {changes.num_gone:,} gone, "
        f"{changes.num_moved:,} moved to another class, {changes.num_renamed:,} renamed"
    )
    lines = [counts]
    if changes.num_touched:
        lines.append(f"read again, for another size, time or inode than before: {changes.num_touched:,}")
    if changes.classes_added:
        lines.append(f"new classes: {', '.join(changes.classes_added)}")
    if changes.classes_removed:
        lines.append(f"classes that are gone: {', '.join(changes.classes_removed)}")
    if changes.renumbered:
        pairs = (f"{name} {before} -> {now}" for name, (before, now) in changes.renumbered.items())
        lines.append(f"other label numbers: {', '.join(pairs)}")
    for line in lines:
        console.print(escape_control_chars(line), markup=False, highlight=False, soft_wrap=True)


def print_estimate(estimate: Estimate) -> None:
    """Prints the estimate of a dry run."""
    console = Console()
    console.print(_counts("class", estimate.class_counts))
    console.print(_counts("estimated images in", estimate.splits))
    console.print(_counts(f"of a sample of {estimate.num_sampled:,}", estimate.sampled_verdicts))
    if estimate.passed_over:
        console.print(_counts("skipped", estimate.passed_over))
    num_files = sum(estimate.class_counts.values())
    console.print(
        f"{num_files:,} files, {format_size(estimate.source_bytes)}; {estimate.num_read:,} to be read, in about "
        f"{estimate.seconds:,.0f} s; {estimate.num_removed:,} gone; about {format_size(estimate.num_bytes)} "
        "to be stored. Dry run: nothing written",
        highlight=False,
    )
    if estimate.classes_removed:
        names = escape_control_chars(", ".join(estimate.classes_removed))
        console.print(f"classes that are gone: {names}", markup=False, highlight=False, soft_wrap=True)


def print_info(info: DatasetInfo, findings: Findings) -> None:
    """Prints classes, splits, sizes, verdicts and issues of a dataset."""
    console = Console()
    _print_info(info, console)
    _print_findings(findings, console)


def _print_info(info: DatasetInfo, console: Console) -> None:
    console.print(_splits(info))
    console.print(_counts("source files", info.verdicts))
    image = info.image
    size = "as their sources" if image.size is None else f"{image.size}x{image.size} ({image.resize})"
    console.print(
        f"images {size}, {image.encoding}; seed {info.split_rule.seed}; fingerprint {info.fingerprint[:16]}",
        highlight=False,
    )


def print_damages(damages: Sequence[Corruption], data_dir: Path) -> None:
    """Prints the corruption that `verify` found, and the commands that repair it."""
    console = Console()
    if not damages:
        _print_whole(console, data_dir)
        return
    table = _files("what is wrong")
    for damage in damages:
        table.add_row(_plain(damage.filename), _plain(damage.what))
    console.print(table)
    remedies = {damage.remedy for damage in damages}
    for remedy, when in {
        "repair": "repair it with",
        "update": "images that were written that way: repair or remove their source files, and then",
    }.items():
        if remedy in remedies:
            command = f"shardstream-ingest {remedy} IMAGES {escape_control_chars(str(data_dir))}"
            console.print(f"{when}: {command}", markup=False, highlight=False, soft_wrap=True)


def print_repairs(repairs: Sequence[Repair], data_dir: Path) -> None:
    """Prints what `repair` did."""
    console = Console()
    if not repairs:
        _print_whole(console, data_dir)
        return
    table = _files("what was wrong", "what was done")
    for repair in repairs:
        table.add_row(_plain(repair.filename), _plain(repair.damage), _plain(repair.outcome))
    console.print(table)
    if all(repair.is_mended for repair in repairs):
        _print_whole(console, data_dir)
    else:
        console.print(
            "restore the original images and run the same command again, or rebuild the dataset with "
            "`shardstream-ingest build`",
            soft_wrap=True,
        )


def _files(*titles: str) -> Table:
    """Returns a table of files with these text columns; long names are wrapped, never truncated."""
    table = Table("file", *titles)
    for column in table.columns:
        column.overflow = "fold"
    return table


def _print_whole(console: Console, data_dir: Path) -> None:
    splits = DatasetInfo.load(data_dir).splits.values()
    console.print(f"whole: {sum(split.num_examples for split in splits):,} records", highlight=False)


def outcome_json(result: BuildResult) -> dict[str, Any]:
    """Returns the result of a build or an update as JSON values."""
    return {
        **info_json(result.info, result.findings),
        "num_read": result.num_read,
        "num_shards_written": result.num_shards_written,
        "passed_over": result.passed_over,
        "source_bytes": result.source_bytes,
        "seconds": round(result.seconds, 3),
        **(dataclasses.asdict(result.changes) if result.changes else {}),
    }


def info_json(info: DatasetInfo, findings: Findings) -> dict[str, Any]:
    """Returns the content of a dataset as JSON values."""
    return {
        "data": str(info.data_dir),
        "class_names": info.class_names,
        "display_names": info.display_names,
        "fingerprint": info.fingerprint,
        "verdicts": dict(info.verdicts),
        "rejections": findings.rejections,
        "repairs": findings.repairs,
        "lossy_repairs": findings.lossy,
        "conflicts": findings.conflicts,
        "num_leaks": findings.look_alikes.num_same if findings.look_alikes else 0,
        "leaks": findings.leaks,
        "look_alikes": dataclasses.asdict(findings.look_alikes) if findings.look_alikes else None,
        "notes": findings.notes,
        "splits": {
            name: {
                "num_examples": split.num_examples,
                "num_bytes": split.num_bytes,
                "num_shards": len(split.shards),
                "class_counts": dict(zip(info.class_names, split.class_counts, strict=True)),
            }
            for name, split in info.splits.items()
        },
    }


def _print_findings(findings: Findings, console: Console) -> None:
    if findings.rejections:
        console.print(_counts("rejected because", findings.rejections))
        for path, reason in findings.rejected:
            console.print(
                escape_control_chars(f"  {path}: {reason}"), markup=False, highlight=False, soft_wrap=True
            )
    if findings.repairs:
        console.print(_counts("repaired because", findings.repairs))
    for title, files in (
        ("repairs that lost something", findings.lossy),
        ("conflicts, left out of all classes", findings.conflicts),
    ):
        if files:
            console.print(f"{title}, such as:", highlight=False)
        for path, reason in files:
            _print_line(f"  {path}: {reason}", console)
    if findings.look_alikes:
        _print_look_alikes(findings.look_alikes, console)
    for note in findings.notes:
        _print_line(f"note: {note}", console)


def _print_look_alikes(found: LookAlikes, console: Console) -> None:
    compared = ""
    if found.num_compared < found.num_candidates:
        compared = f" (of {found.num_compared:,} compared, of {found.num_candidates:,} whose hashes are near)"
    if found.num_same:
        _print_line(
            f"{found.num_same:,} pairs{compared} are one image in two splits, so that the held-out one is easier than "
            "new images are (`build --keep-together near-duplicates` keeps them together where it draws the splits):",
            console,
        )
        _print_pairs(found.same, found.num_same, console)
    if found.num_bursts:
        _print_line(
            f"{found.num_bursts:,} pairs{compared} resemble each other, follow one another by number and lie in two "
            "splits, as shots of one scene would:",
            console,
        )
        _print_pairs(found.bursts, found.num_bursts, console)


def _print_pairs(pairs: Sequence[PathPair], count: int, console: Console) -> None:
    for one, other in pairs[:_MAX_LEAKS_SHOWN]:
        _print_line(f"  {one}  {other}", console)
    if count > _MAX_LEAKS_SHOWN:
        _print_line(f"  and {count - _MAX_LEAKS_SHOWN:,} more", console)


def _print_line(line: str, console: Console) -> None:
    console.print(escape_control_chars(line), markup=False, highlight=False, soft_wrap=True)


def _splits(info: DatasetInfo) -> Table:
    table = Table("class", *map(_plain, info.splits), "total")
    for column in table.columns[1:]:
        column.justify = "right"
    for label, (name, display_name) in enumerate(zip(info.class_names, info.display_names, strict=True)):
        counts = [split.class_counts[label] for split in info.splits.values()]
        shown = name if name == display_name else f"{name} ({display_name})"
        table.add_row(_plain(shown), *map(_number, [*counts, sum(counts)]))
        if label + 1 == _MAX_CLASSES_SHOWN < info.num_classes:
            table.add_row(f"and {info.num_classes - _MAX_CLASSES_SHOWN:,} more (--json has all)")
            break
    table.add_section()
    for title, totals, write in (
        ("all", [split.num_examples for split in info.splits.values()], _number),
        ("shards", [len(split.shards) for split in info.splits.values()], _number),
        ("size", [split.num_bytes for split in info.splits.values()], format_size),
    ):
        table.add_row(title, *map(write, [*totals, sum(totals)]))
    return table


def _counts(title: str, counts: Mapping[str, int]) -> Table:
    table = Table(title, "files")
    table.columns[1].justify = "right"
    for name, count in counts.items():
        if count:
            table.add_row(_plain(name), _number(count))
    return table


def _plain(text: str) -> str:
    """Escapes `text` for output: rich interprets "[red]" as markup, and terminals interpret control characters."""
    return escape(escape_control_chars(text))


def _number(count: float) -> str:
    return f"{count:,.0f}"
