"""Limits that a user sets for a model, and whether its predictions keep to them: the gate of a CI job."""

import dataclasses
from collections.abc import Sequence

from shardstream.ingest.common.errors import LimitError
from shardstream.predict.metrics.classification import Summary
from shardstream.predict.metrics.intervals import Estimate

# Of many classes below their limit the sentence names the worst; metrics.json has all.
_NUM_NAMED = 5


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The least that is asked for, as shares; None where nothing is."""

    accuracy: float | None = None
    class_recall: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One figure beside its limit.

    The figure itself is compared, not its interval: a job that passes today and fails tomorrow on the same images
    would be worth nothing, and of a few images no interval lies above 0.95. Whether the interval holds the limit
    is said, for then other images of the same kind may decide otherwise.

    Attributes:
        what: "accuracy", or "recall of 'food'".
        option: That set the limit.
        limit: The least that is asked for.
        num_right: How many images were right.
        num_examples: Of how many; where there are none nothing is shown, and the limit is not kept.
        figure: Their share, weighed as the sample asks for; None where there is no image.
    """

    what: str
    option: str
    limit: float
    num_right: int
    num_examples: int
    figure: Estimate | None

    @property
    def share(self) -> float | None:
        """The figure; None where there is no image."""
        return None if self.figure is None else self.figure.value

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the figure; everything where there is no image."""
        return (0.0, 1.0) if self.figure is None else (self.figure.low, self.figure.high)

    @property
    def is_kept(self) -> bool:
        """Whether the figure is at least the limit."""
        return self.share is not None and self.share >= self.limit

    @property
    def is_clear(self) -> bool:
        """Whether the whole interval lies on the side of the figure."""
        low, high = self.interval
        return low >= self.limit if self.is_kept else high < self.limit

    def sentence(self) -> str:
        """Returns the figure, the limit and how sure that is, in words."""
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
        """Returns a percentage with as many digits as the figure needs to differ from its limit."""
        for digits in range(2, 9):
            if self.share in (None, self.limit) or f"{self.share:.{digits}%}" != f"{self.limit:.{digits}%}":
                return f"{value:.{digits}%}"
        return f"{value:%}"


def check_limits(summary: Summary, class_names: Sequence[str], limits: Limits) -> list[Check]:
    """Returns a check for each limit: of the accuracy, and of the recall of each class, the lowest first."""
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
    """Ensures that every limit is kept.

    Raises:
        LimitError: Some are not; says which and by how much.
    """
    missed = [check.sentence() for check in checks if not check.is_kept]
    if missed:
        more = f"; and {len(missed) - _NUM_NAMED:,} more" if len(missed) > _NUM_NAMED else ""
        raise LimitError("; ".join(missed[:_NUM_NAMED]) + more)
