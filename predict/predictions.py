"""predictions.csv: a row for each picture."""

import csv
from collections.abc import Sequence
from typing import TextIO

from predict.prediction import Prediction

COLUMNS = (
    "record", "shard", "position", "source_path", "source_sha256",
    "actual", "predicted", "probability", "right", "loss",
)  # fmt: skip

# A spreadsheet takes a cell that begins with one of these for a formula, and formulas can call programs.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


class PredictionsFile:
    """Writes rows as the predictions come, so that memory does not grow with their number."""

    def __init__(self, file: TextIO, class_names: Sequence[str]) -> None:
        """Begins with the header. `file` was opened with newline=""."""
        self._class_names = class_names
        # Lines end with CR LF, as the standard wants it; with LF alone a CR in a name would not be quoted.
        self._writer = csv.writer(file)
        self._writer.writerow([*COLUMNS, *(guarded(f"probability_{name}") for name in class_names)])

    def write(self, prediction: Prediction) -> None:
        """Adds one row."""
        record = prediction.record
        names = (self._class_names[label] for label in (prediction.actual, prediction.predicted))
        texts = [record.id, record.shard, record.position, record.source_path, record.source_sha256, *names]
        self._writer.writerow(
            [
                *(guarded(text) if isinstance(text, str) else text for text in texts),
                f"{prediction.probability:.6f}",
                "yes" if prediction.right else "no",
                f"{prediction.loss:.6f}",
                *(f"{probability:.6f}" for probability in prediction.probabilities),
            ]
        )


def guarded(text: str) -> str:
    """Returns `text` with an apostrophe before it where a spreadsheet would run it as a formula."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
