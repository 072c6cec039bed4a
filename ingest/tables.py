"""What the commands print: tables for people, dictionaries for machines."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ingest.build import BuildResult
from ingest.metadata import DatasetInfo
from ingest.verify import Damage


def print_build(result: BuildResult) -> None:
    """Prints what a build came to."""
    console = Console()
    print_info(result.info, console)
    if result.rejections:
        console.print(_counts("rejected because", result.rejections))
        for path, reason in result.rejected:
            console.print(f"  {path}: {reason}", markup=False, highlight=False, soft_wrap=True)
    if result.passed_over:
        console.print(_counts("passed over", result.passed_over))
    num_files = sum(result.info.verdicts.values())
    console.print(
        f"{num_files:,} files, {_size(result.source_bytes)}, in {result.seconds:.1f} s: "
        f"{num_files / result.seconds:,.0f} files/s, {_size(result.source_bytes / result.seconds)}/s",
        highlight=False,
    )
    console.print(f"dataset: {result.info.data_dir}", markup=False, highlight=False, soft_wrap=True)


def print_info(info: DatasetInfo, console: Console | None = None) -> None:
    """Prints classes, splits, sizes and verdicts of a dataset."""
    console = console or Console()
    console.print(_splits(info))
    console.print(_counts("source files", info.verdicts))
    image = info.image
    size = "as their sources" if image.size is None else f"{image.size}x{image.size} ({image.resize})"
    console.print(
        f"pictures {size}, {image.encoding}; seed {info.seed}; fingerprint {info.fingerprint[:16]}",
        highlight=False,
    )


def print_damages(damages: Sequence[Damage], info: DatasetInfo) -> None:
    """Prints what `verify` found."""
    console = Console()
    if not damages:
        num_examples = sum(split.num_examples for split in info.splits.values())
        console.print(f"whole: {num_examples:,} records", highlight=False)
        return
    table = Table("file", "what is wrong")
    for damage in damages:
        table.add_row(escape(damage.filename), escape(damage.what))
    console.print(table)


def build_json(result: BuildResult) -> dict[str, Any]:
    """Returns what a build came to, for machines."""
    return {
        **info_json(result.info),
        "rejections": result.rejections,
        "passed_over": result.passed_over,
        "source_bytes": result.source_bytes,
        "seconds": round(result.seconds, 3),
    }


def info_json(info: DatasetInfo) -> dict[str, Any]:
    """Returns what a dataset holds, for machines."""
    return {
        "data": str(info.data_dir),
        "class_names": info.class_names,
        "display_names": info.display_names,
        "fingerprint": info.fingerprint,
        "verdicts": dict(info.verdicts),
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


def _splits(info: DatasetInfo) -> Table:
    table = Table("class", *info.splits, "total")
    for column in table.columns[1:]:
        column.justify = "right"
    for label, (name, display_name) in enumerate(zip(info.class_names, info.display_names, strict=True)):
        counts = [split.class_counts[label] for split in info.splits.values()]
        shown = name if name == display_name else f"{name} ({display_name})"
        table.add_row(escape(shown), *map(_number, [*counts, sum(counts)]))
    table.add_section()
    for title, totals, write in (
        ("all", [split.num_examples for split in info.splits.values()], _number),
        ("shards", [len(split.shards) for split in info.splits.values()], _number),
        ("size", [split.num_bytes for split in info.splits.values()], _size),
    ):
        table.add_row(title, *map(write, [*totals, sum(totals)]))
    return table


def _counts(title: str, counts: Mapping[str, int]) -> Table:
    table = Table(title, "files")
    table.columns[1].justify = "right"
    for name, count in counts.items():
        if count:
            table.add_row(escape(name), _number(count))
    return table


def _number(count: float) -> str:
    return f"{count:,.0f}"


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"
