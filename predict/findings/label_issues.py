"""Labels that are probably wrong, where the predictions tell them from the model's own errors."""

import dataclasses

import numpy as np

from shardstream.predict.inference.prediction import SMALLEST_PROBABILITY
from shardstream.predict.inference.prediction_table import ClassPredictions

# A label is listed where it is more likely wrong than correct, and another class more likely than not.
_LEAST_PROBABILITY = 0.5
# Of the images that are predicted as confidently as those of the list so many have to be predicted correctly. Else
# the model is as often wrong where it is confident, and its confidence says little about a label.
_LEAST_ACCURACY = 0.9
# Twice the log likelihood that is lost at the lower 95 % limit of the fraction of wrong labels, one-sided.
_LIKELIHOOD_RATIO = 2.706

_SHARPNESS = np.geomspace(0.1, 4, 40)
_NOISE = np.array([0.0, *np.geomspace(1e-3, 0.3, 30)])
_MAX_FITTED = 20_000
_MOST_ERRORS = 24


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelIssues:
    """Images whose label is probably wrong, or the most confident errors where nothing can be said of labels.

    Attributes:
        rows: int64, of the predictions, the most probable first.
        probabilities: float64, how probable it is that the label is wrong; their mean is the fraction of the list that
            is expected to be.
        errors: int64, rows of the most confident errors beside these: worth a look, and nothing is claimed of them.
    """

    rows: np.ndarray
    probabilities: np.ndarray
    errors: np.ndarray

    @property
    def expected_precision(self) -> float | None:
        """The fraction of the list that is expected to be labelled wrong; None where nothing is listed."""
        return float(self.probabilities.mean()) if len(self.rows) else None


def find_label_issues(outcomes: ClassPredictions, *, num_classes: int) -> LabelIssues:
    """Returns the images whose label is probably wrong.

    A mixture is fitted by maximum likelihood: a fraction of the labels is wrong, which then are any other class, and
    the others have the probability that the model gives them once its probabilities are sharpened or flattened
    (temperature scaling, Guo et al. 2017). Of a weak model the probabilities are flattened so far that its errors are
    no surprise, and nothing is listed. The lower limit of the fraction is taken, so that a few surprising images
    are no proof. It means little for images that the model was trained on.
    """
    wrong = np.flatnonzero(~outcomes.right)
    lead = outcomes.probabilities[wrong] - outcomes.actual_probabilities[wrong]
    wrong = wrong[np.argsort(-lead, kind="stable")]
    sharpness, noise = _fit(outcomes, num_classes)
    rows, probabilities = np.empty(0, np.int64), np.empty(0)
    if noise > 0 and len(wrong):
        label = _label_probabilities(outcomes, sharpness, num_classes)[wrong]
        of_noise = noise / (num_classes - 1) * (1 - label)
        chance = of_noise / (of_noise + (1 - noise) * label)
        order = np.argsort(-chance, kind="stable")
        # The model itself has to prefer one other class to all others together.
        likely = (chance >= _LEAST_PROBABILITY) & (outcomes.probabilities[wrong] >= _LEAST_PROBABILITY)
        order = order[likely[order]]
        rows, probabilities = wrong[order], chance[order]
        if not _is_good_where_confident(outcomes, rows):
            rows, probabilities = rows[:0], probabilities[:0]
    errors = wrong[~np.isin(wrong, rows)][:_MOST_ERRORS]
    return LabelIssues(rows=rows, probabilities=probabilities, errors=errors)


def _is_good_where_confident(outcomes: ClassPredictions, rows: np.ndarray) -> bool:
    if not len(rows):
        return False
    # Wrong labels may be where a model is most confident of all: half of its correct predictions belong to it as well.
    usual = np.median(outcomes.probabilities[outcomes.right]) if outcomes.right.any() else 1.0
    confident = outcomes.probabilities >= min(np.quantile(outcomes.probabilities[rows], 0.1), usual)
    return float(outcomes.right[confident].mean()) >= _LEAST_ACCURACY


def _fit(outcomes: ClassPredictions, num_classes: int) -> tuple[float, float]:
    """Returns the exponent of the probabilities and the lower limit of the fraction of wrong labels."""
    step = max(1, len(outcomes) // _MAX_FITTED)
    likelihoods = np.array(
        [
            _log_likelihoods(_label_probabilities(outcomes, sharpness, num_classes)[::step], num_classes)
            for sharpness in _SHARPNESS
        ]
    )
    profile = likelihoods.max(axis=0)
    plausible = 2 * (profile.max() - profile) <= _LIKELIHOOD_RATIO
    least = int(np.argmax(plausible))
    return float(_SHARPNESS[likelihoods[:, least].argmax()]), float(_NOISE[least])


def _log_likelihoods(label: np.ndarray, num_classes: int) -> list[float]:
    """Returns the log likelihood for each fraction of wrong labels; `label` is how probable the labels are."""
    others = (1 - label) / max(num_classes - 1, 1)
    return [float(np.log((1 - noise) * label + noise * others + 1e-300).sum()) for noise in _NOISE]


def _label_probabilities(outcomes: ClassPredictions, sharpness: float, num_classes: int) -> np.ndarray:
    """Returns float64 [num_examples], the probabilities of the labels once all are raised to the power `sharpness`.

    Of classes that are neither the label nor among the most probable ones only the sum is known: they share it.
    """
    top = np.maximum(outcomes.top_probabilities.astype(np.float64), SMALLEST_PROBABILITY)
    label = np.maximum(outcomes.actual_probabilities.astype(np.float64), SMALLEST_PROBABILITY)
    in_top = (outcomes.top_labels == outcomes.labels[:, np.newaxis]).any(axis=1)
    num_left = np.maximum(num_classes - top.shape[1] - ~in_top, 0)
    left = np.maximum(1 - top.sum(axis=1) - np.where(in_top, 0, label), 0)
    each = np.maximum(left / np.maximum(num_left, 1), SMALLEST_PROBABILITY * 1e-3)
    total = (top**sharpness).sum(axis=1) + np.where(in_top, 0, label**sharpness) + num_left * each**sharpness
    return label**sharpness / total
