"""What a report came to: what the page, the table and the viewer show."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shardstream.predict.findings.gallery import Shown
from shardstream.predict.findings.neighbors import Neighbors
from shardstream.predict.findings.summary import Findings
from shardstream.predict.inference.prediction_table import PredictionTable
from shardstream.predict.inference.selection import Sampling, Selection
from shardstream.predict.metrics.calibration import Calibration
from shardstream.predict.metrics.classification import Summary
from shardstream.predict.metrics.comparison import Comparison, Cost
from shardstream.predict.metrics.gate import Check
from shardstream.predict.output.fonts import LabelFont
from shardstream.predict.output.metrics_json import Provenance
from shardstream.predict.output.staging import PAGE


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was found; `report.write_report` makes files of it.

    Attributes:
        sampling: What was asked for.
        selection: Which records were predicted.
        outcomes: What the model said of each.
        summary: The figures.
        findings: What else is worth a look.
        calibration: How far its probabilities can be believed.
        rows: int64, of the outcomes that have an image.
        pictures: What is looked at, the first to look at first.
        class_names: In label order.
        display_names: In label order.
        lettering: Names and font for drawing on images.
        checks: What the limits that the user set came to.
        cost: What the model takes.
        comparisons: How other models fare on the same records.
        changed: Of images that only one of two models gets right, by row.
        neighbors: The most similar training images of `rows`; None where they are not known.
        metrics: What metrics.json holds.
        provenance: Where all this comes from.
        out: The folder with the files; None where none were written.
    """

    sampling: Sampling
    selection: Selection
    outcomes: PredictionTable
    summary: Summary
    findings: Findings
    calibration: Calibration
    rows: np.ndarray
    pictures: Sequence[Shown]
    class_names: Sequence[str]
    display_names: Sequence[str]
    lettering: LabelFont
    checks: Sequence[Check]
    cost: Cost
    comparisons: Sequence[Comparison]
    changed: Mapping[int, Shown]
    metrics: dict[str, Any]
    provenance: Provenance
    neighbors: Neighbors | None = None
    out: Path | None = None

    @property
    def page(self) -> Path:
        """The page for people.

        Raises:
            ValueError: The report was not written.
        """
        if self.out is None:
            raise ValueError("the report was computed and not written")
        return self.out / PAGE


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PhotoReport:
    """What came of it.

    Attributes:
        out: The folder with the files.
        metrics: What metrics.json holds.
        rejected: The first rejected files, with their reasons.
    """

    out: Path
    metrics: dict[str, Any]
    rejected: Sequence[tuple[str, str]]
