"""Thresholds that the predictions of a model must meet: the gate of a CI job."""

import dataclasses
from collections.abc import Sequence

from shardstream.ingest.common.errors import LimitError
from shardstream.predict.metrics.classification import Summary
from shardstream.predict.metrics.intervals import Estimate

# Of many classes below the threshold the message names the worst; metrics.json has all.
_NUM_NAMED = 5


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Minimum values, as fractions; None for no threshold."""

    accuracy: float | None = None
    class_recall: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """A metric and its threshold.

    The metric itself is compared, not its interval: a job must not pass today and fail tomorrow on the same images, and
    with few images no interval is above 0.95. The message says whether the interval contains the threshold, as other
    images of the same kind may then give another result.

    Attributes:
        what: "accuracy", or "recall of 'food'".
        option: The option that set the threshold.
        limit: The threshold.
        num_right: Number of correct predictions.
        num_examples: Number of images; without images the check fails.
        figure: The fraction, weighted according to the sample; None without images.
    """

    what: str
    option: str
    limit: float
    num_right: int
    num_examples: int
    figure: Estimate | None

    @property
    def share(self) -> float | None:
        """The value of the metric; None without images."""
        return None if self.figure is None else self.figure.value

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the metric; [0, 1] without images."""
        return (0.0, 1.0) if self.figure is None else (self.figure.low, self.figure.high)

    @property
    def is_kept(self) -> bool:
        """Whether the metric meets the threshold."""
        return self.share is not None and self.share >= self.limit

    @property
    def is_clear(self) -> bool:
        """Whether the complete interval is on the same side of the threshold as the metric."""
        low, high = self.interval
        return low >= self.limit if self.is_kept else high < self.limit

    def sentence(self) -> str:
        """Returns the metric, the threshold and how certain the result is, in words."""
        if self.share is None:
            return f"{self.what} is unknown: no image of that class was predicted ({self._asked})"
        (low, high), verb = self.interval, "meets" if self.is_kept else "is below"
        doubt = "" if self.is_clear else ", which contains the limit: predict more images to be sure"
        return (
            f"{self.what} {self._percent(self.share)} ({self.num_right:,} of {self.num_examples:,}) "
            f"{verb} {self._asked}; 95 % interval {low:.1%} to {high:.1%}{doubt}"
        )

    @property
    def _asked(self) -> str:
        return f"{self.option} {self._percent(self.limit)}"

    def _percent(self, value: float) -> str:
        """Returns a percentage with enough digits to differ from the threshold."""
        for digits in range(2, 9):
            if self.share in (None, self.limit) or f"{self.share:.{digits}%}" != f"{self.limit:.{digits}%}":
                return f"{value:.{digits}%}"
        return f"{value:%}"


def check_limits(summary: Summary, class_names: Sequence[str], limits: Limits) -> list[Check]:
    """Returns a check for each threshold: of the accuracy, and of the recall of each class, lowest first."""
    checks = []
    if limits.accuracy is not None:
        checks.append(
            Check(
                what="accuracy",
                option="--min-accuracy",
                limit=limits.accuracy,
                num_right=summary.num_right,
                num_examples=summary.num_examples,
                figure=summary.accuracy,
            )
        )
    if limits.class_recall is not None:
        recalls = [
            Check(
                what=f"recall of {class_names[figures.label]!r}",
                option="--min-class-recall",
                limit=limits.class_recall,
                num_right=figures.num_right,
                num_examples=figures.support,
                figure=figures.recall,
            )
            for figures in summary.classes
        ]
        checks += sorted(recalls, key=lambda check: -1.0 if check.share is None else check.share)
    return checks


def enforce(checks: Sequence[Check]) -> None:
    """Checks that every threshold is met.

    Raises:
        LimitError: Some are not; names them and the differences.
    """
    missed = [check.sentence() for check in checks if not check.is_kept]
    if missed:
        more = f"; and {len(missed) - _NUM_NAMED:,} more" if len(missed) > _NUM_NAMED else ""
        raise LimitError("; ".join(missed[:_NUM_NAMED]) + more)
