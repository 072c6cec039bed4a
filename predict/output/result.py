"""The result of a report: what the page, the table and the viewer show."""

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

# Images or photos that the terminal shows; the files have all.
MAX_ROWS = 32


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """All results of a report; `report.write_report` writes them to files.

    Attributes:
        sampling: The sampling that the user requested.
        selection: The predicted records.
        outcomes: The predictions.
        summary: The metrics.
        findings: The findings.
        calibration: Calibration of the probabilities.
        rows: int64, rows of the predictions whose images are shown.
        pictures: These images, most important first.
        class_names: Class names in label order.
        display_names: Display names in label order.
        lettering: Names and font for drawing on images.
        checks: Results for the thresholds that the user set.
        cost: Cost of the model.
        comparisons: Comparisons with other models on the same records.
        changed: Images that only one of two models predicts correctly, by row.
        neighbors: The nearest training images of `rows`; None if unknown.
        metrics: Content of metrics.json.
        provenance: Provenance of the report.
        out: The report folder; None if nothing was written.
        is_replaced: Whether an earlier report in that folder was replaced.
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
    is_replaced: bool = False

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
    """The result for loose photos.

    Attributes:
        out: The report folder.
        metrics: Content of metrics.json.
        rejected: The first rejected files, with their reasons.
        predicted: The first classified files, each with its class and the probability of that.
        is_replaced: Whether an earlier report in that folder was replaced.
    """

    out: Path
    metrics: dict[str, Any]
    rejected: Sequence[tuple[str, str]]
    predicted: Sequence[tuple[str, str, float]]
    is_replaced: bool
