"""Finds labels that are probably wrong, as distinct from the model's own errors."""

import dataclasses

import numpy as np

from shardstream.predict.inference.prediction import SMALLEST_PROBABILITY
from shardstream.predict.inference.prediction_table import ClassPredictions

# A label is listed if it is more likely wrong than correct, and one other class has more than half the probability.
_MIN_PROBABILITY = 0.5
# Minimum accuracy of the predictions at least as confident as those of the list. Below it, the model is wrong as often
# when it is confident, and its confidence says little about a label.
_MIN_ACCURACY = 0.9
# Twice the drop of the log likelihood at the lower one-sided 95 % limit of the fraction of wrong labels.
_LIKELIHOOD_RATIO = 2.706

_SHARPNESS = np.geomspace(0.1, 4, 40)
_NOISE = np.array([0.0, *np.geomspace(1e-3, 0.3, 30)])
_MAX_FITTED = 20_000
_MAX_ERRORS = 24


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelIssues:
    """Images whose label is probably wrong, and the most confident errors if labels cannot be judged.

    Attributes:
        rows: int64, rows of the predictions, most probable first.
        probabilities: float64, probability that each label is wrong; their mean is the expected fraction of wrong
            labels in the list.
        errors: int64, rows of the other most confident errors: worth a look, without a claim about their labels.
    """

    rows: np.ndarray
    probabilities: np.ndarray
    errors: np.ndarray

    @property
    def expected_precision(self) -> float | None:
        """The expected fraction of the list that is labelled wrong; None if the list is empty."""
        return float(self.probabilities.mean()) if len(self.rows) else None


def find_label_issues(outcomes: ClassPredictions, *, num_classes: int) -> LabelIssues:
    """Returns the images whose label is probably wrong.

    A mixture is fitted by maximum likelihood: a fraction of the labels is wrong, uniformly over the other classes, and
    the others follow the model's probabilities after temperature scaling (Guo et al. 2017). The probabilities of a
    weak model become so flat that its errors are no surprise, and nothing is listed. The lower confidence limit of the
    fraction is used, so that a few surprising images are not enough. It means little for images that the model was
    trained on.
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
        # The model itself must prefer one other class to all others together.
        likely = (chance >= _MIN_PROBABILITY) & (outcomes.probabilities[wrong] >= _MIN_PROBABILITY)
        order = order[likely[order]]
        rows, probabilities = wrong[order], chance[order]
        if not _is_good_where_confident(outcomes, rows):
            rows, probabilities = rows[:0], probabilities[:0]
    errors = wrong[~np.isin(wrong, rows)][:_MAX_ERRORS]
    return LabelIssues(rows=rows, probabilities=probabilities, errors=errors)


def _is_good_where_confident(outcomes: ClassPredictions, rows: np.ndarray) -> bool:
    if not len(rows):
        return False
    # Wrong labels may be where the model is most confident: half of its correct predictions are included as well.
    usual = np.median(outcomes.probabilities[outcomes.right]) if outcomes.right.any() else 1.0
    confident = outcomes.probabilities >= min(np.quantile(outcomes.probabilities[rows], 0.1), usual)
    return float(outcomes.right[confident].mean()) >= _MIN_ACCURACY


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
    """Returns the log likelihood for each fraction of wrong labels; `label` holds the probabilities of the labels."""
    others = (1 - label) / max(num_classes - 1, 1)
    return [float(np.log((1 - noise) * label + noise * others + 1e-300).sum()) for noise in _NOISE]


def _label_probabilities(outcomes: ClassPredictions, sharpness: float, num_classes: int) -> np.ndarray:
    """Returns float64 [num_examples], the probabilities of the labels after raising all to the power `sharpness`.

    Of classes that are neither the label nor among the most probable, only the sum is known: it is divided evenly.
    """
    top = np.maximum(outcomes.top_probabilities.astype(np.float64), SMALLEST_PROBABILITY)
    label = np.maximum(outcomes.actual_probabilities.astype(np.float64), SMALLEST_PROBABILITY)
    in_top = (outcomes.top_labels == outcomes.labels[:, np.newaxis]).any(axis=1)
    num_left = np.maximum(num_classes - top.shape[1] - ~in_top, 0)
    left = np.maximum(1 - top.sum(axis=1) - np.where(in_top, 0, label), 0)
    each = np.maximum(left / np.maximum(num_left, 1), SMALLEST_PROBABILITY * 1e-3)
    total = (top**sharpness).sum(axis=1) + np.where(in_top, 0, label**sharpness) + num_left * each**sharpness
    return label**sharpness / total
