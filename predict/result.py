"""What a report came to: what the page, the table and the viewer show."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shardstream.predict.analysis import Summary
from shardstream.predict.calibration import Calibration
from shardstream.predict.comparison import Comparison, Cost
from shardstream.predict.config import Sampling
from shardstream.predict.findings import Findings
from shardstream.predict.fonts import Lettering
from shardstream.predict.gallery import Shown
from shardstream.predict.gate import Check
from shardstream.predict.outcomes import Outcomes
from shardstream.predict.provenance import Provenance
from shardstream.predict.selection import Selection

PAGE = "index.html"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was found, and where it was written.

    Attributes:
        out: The folder with the files.
        sampling: What was asked for.
        selection: Which records were predicted.
        outcomes: What the model said of each.
        summary: The figures.
        findings: What else is worth a look.
        calibration: How far its probabilities can be believed.
        rows: int64, of the outcomes that have a picture.
        pictures: What is looked at, the first to look at first.
        class_names: In label order.
        display_names: In label order.
        lettering: Names and font for drawing on pictures.
        checks: What the limits that the user set came to.
        cost: What the model takes.
        comparisons: How other models fare on the same records.
        changed: Of pictures that only one of two models gets right, by row.
        metrics: What metrics.json holds.
        provenance: Where all this comes from.
    """

    out: Path
    sampling: Sampling
    selection: Selection
    outcomes: Outcomes
    summary: Summary
    findings: Findings
    calibration: Calibration
    rows: np.ndarray
    pictures: Sequence[Shown]
    class_names: Sequence[str]
    display_names: Sequence[str]
    lettering: Lettering
    checks: Sequence[Check]
    cost: Cost
    comparisons: Sequence[Comparison]
    changed: Mapping[int, Shown]
    metrics: dict[str, Any]
    provenance: Provenance

    @property
    def page(self) -> Path:
        """The page for people."""
        return self.out / PAGE
