"""Prints the predictions in the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shardstream.ingest.common.terminal import escape_control_chars
from shardstream.predict.findings.gallery import Shown
from shardstream.predict.inference.selection import Sampling
from shardstream.predict.metrics.comparison import Comparison, Cost
from shardstream.predict.output.result import MAX_ROWS, PhotoReport, Report
from shardstream.predict.output.staging import PAGE

# The accuracy and the classes with the lowest recall.
_NUM_CHECKS = 6
_NUM_REJECTED = 10

# Order of the images.
ORDERS: Mapping[Sampling, str] = {
    "uniform": "incorrect ones first, highest loss first",
    "stratified": "incorrect ones first, highest loss first",
    "worst": "highest loss first",
    "confident-errors": "errors, the most confident first",
    "borderline": "the closest decisions first",
}


def print_report(report: Report, console: Console) -> None:
    """Prints a row for each of the first 32 images, the summary and the path of the page."""
    shown = report.pictures[:MAX_ROWS]
    console.print(picture_table(shown, report.display_names))
    if len(shown) < report.summary.num_examples:
        total = f"{report.summary.num_examples:,}"
        order = ORDERS[report.sampling]
        if not report.summary.num_wrong:
            order = order.removeprefix("incorrect ones first, ")
        console.print(Text(f"{len(shown)} of {total} images: {order}"))
    # No wrapping: a line that is broken cannot be searched or copied.
    console.print(Text(summary_line(report), style="bold"), soft_wrap=True)
    if report.comparisons:
        console.print(comparison_table(report))
    for check in report.checks[:_NUM_CHECKS]:
        console.print(
            Text(escape_control_chars(check.sentence()), style="" if check.is_kept else "bold red"),
            soft_wrap=True,
        )
    _print_page(report.page, console, is_replaced=report.is_replaced)


def picture_table(pictures: Sequence[Shown], display_names: Sequence[str]) -> Table:
    """Returns a table with the actual and predicted names of each image."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for header in ("", "actual", "predicted"):
        table.add_column(header)
    table.add_column("probability", justify="right")
    table.add_column("image", overflow="fold")
    for shown in pictures:
        table.add_row(*_row(shown, display_names))
    return table


def print_photo_report(report: PhotoReport, console: Console) -> None:
    """Prints each photo if they are few, the number per predicted class, rejected ones and the path of the page."""
    if report.metrics["num_files"] <= MAX_ROWS:
        console.print(_photo_table(report.predicted))
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("predicted")
    table.add_column("photos", justify="right")
    for name, count in report.metrics["predicted"].items():
        table.add_row(Text(escape_control_chars(name)), f"{count:,}")
    console.print(table)
    for path, reason in report.rejected[:_NUM_REJECTED]:
        console.print(Text(escape_control_chars(f"rejected: {path}: {reason}")), soft_wrap=True)
    verdicts = report.metrics["verdicts"]
    counts = ", ".join(f"{count:,} {verdict}" for verdict, count in verdicts.items())
    num_files = report.metrics["num_files"]
    files = "1 file" if num_files == 1 else f"{num_files:,} files"
    console.print(Text(f"{files}: {counts}", style="bold"), soft_wrap=True)
    _print_page(report.out / PAGE, console, is_replaced=report.is_replaced)


def _print_page(page: Path, console: Console, *, is_replaced: bool) -> None:
    if is_replaced:
        replaced = f"replaced the earlier report in {page.parent}; --out PATH keeps both"
        console.print(Text(escape_control_chars(replaced)), soft_wrap=True)
    console.print(Text(f"report: {escape_control_chars(str(page))}"), soft_wrap=True)


def _photo_table(photos: Sequence[tuple[str, str, float]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("predicted", overflow="fold")
    table.add_column("probability", justify="right")
    table.add_column("image", overflow="fold")
    for path, name, probability in photos:
        table.add_row(
            Text(escape_control_chars(name)), f"{probability:.1%}", Text(escape_control_chars(path))
        )
    return table


def comparison_table(report: Report) -> Table:
    """Returns a table with a column for each model that predicted the images."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    names = ["RUN", *(escape_control_chars(one.name) for one in report.comparisons)]
    for name in names:
        table.add_column(Text(name), justify="right", overflow="fold")
    columns = [
        [f"{report.summary.accuracy.value:.1%}", *[""] * 7, *_costs(report.cost)],
        *map(_comparison, report.comparisons),
    ]
    headings = (
        "accuracy", "difference", "95 % interval", "correct here, incorrect in RUN", "incorrect here, correct in RUN",
        "p", "agreement", "kappa", "parameters", "MB", "ms an image",
    )  # fmt: skip
    for heading, *cells in zip(headings, *columns, strict=True):
        table.add_row(heading, *cells)
    return table


def _comparison(one: Comparison) -> list[str]:
    difference = one.whole.difference
    return [
        f"{one.accuracy.value:.1%}",
        f"{difference.value:+.1%}",
        f"{difference.low:+.1%} to {difference.high:+.1%}",
        f"{one.whole.num_fixes:,}",
        f"{one.whole.num_regressions:,}",
        f"{one.p_value:.2g}",
        f"{one.agreement:.1%}",
        "" if one.kappa is None else f"{one.kappa:.2f}",
        *_costs(one.cost),
    ]


def _costs(cost: Cost) -> list[str]:
    return [f"{cost.num_parameters:,}", f"{cost.file_bytes / 1e6:.2f}", f"{cost.ms_per_picture:.2f}"]


def summary_line(report: Report) -> str:
    """Returns the summary in one line."""
    summary = report.summary
    accuracy = summary.accuracy
    return (
        f"accuracy {accuracy.value:.1%} (95 % interval {accuracy.low:.1%} to {accuracy.high:.1%}): "
        f"{summary.num_right:,} of {summary.num_examples:,} correct; {report.selection.description}"
    )


def _row(shown: Shown, display_names: Sequence[str]) -> list[Text]:
    prediction = shown.prediction
    # Text, not str: rich would interpret "[red]" in a name as markup.
    return [
        Text("correct", style="cyan") if prediction.right else Text("INCORRECT", style="bold red"),
        Text(escape_control_chars(display_names[prediction.actual])),
        Text(
            escape_control_chars(display_names[prediction.predicted]),
            style="" if prediction.right else "bold red",
        ),
        Text(f"{prediction.probability:.1%}"),
        Text(escape_control_chars(prediction.record.source_path)),
    ]
