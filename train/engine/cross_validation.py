"""Chooses regularization and temperature of a head by cross-validation within the training split."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from shardstream.train.engine.linear_head import HeadProblem, LinearHead
from shardstream.train.engine.temperature import cross_entropy, fit_temperature, log_softmax

NUM_FOLDS = 5
# Number of examples to compare strengths on: the best one hardly depends on the rest.
MAX_EXAMPLES = 10_000
# Fewer with many classes: this number of logits is enough.
_MAX_LOGITS, _MIN_EXAMPLES = 200_000, 2_000
# Fewer still if only the predictions are needed, not the head.
_MAX_CHOSEN_ON = 3_000
# From strong to weak, so that each fit starts from the previous one.
STRENGTHS = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001, 0.00003)
# Weaker ones are not tried after this number of strengths in a row was worse than the best.
_PATIENCE = 2
# Per element of the gradient. If the classes are separable, weak regularization has a distant minimum, and the result
# depends on where the fit stops: so all fits stop at the same tolerance, including the last one.
_TOLERANCE = 5e-4
_MAX_ITERATIONS = 100


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CrossValidation:
    """Result of the cross-validation.

    Attributes:
        l2: The strength of the regularization with the smallest cross-entropy.
        temperature: What to divide the logits by; 1 with too few examples.
        accuracy: Accuracy of the out-of-fold predictions.
        cross_entropy: Cross-entropy of the same predictions, calibrated.
        num_examples: Number of examples.
    """

    l2: float
    temperature: float
    accuracy: float
    cross_entropy: float
    num_examples: int


def cross_validate(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    seed: int,
    groups: np.ndarray | None = None,
    class_weights: Sequence[float] | None = None,
) -> CrossValidation:
    """Returns the regularization with the best out-of-fold predictions.

    Args:
        features: float16 or float32 [num_examples, num_features].
        labels: int [num_examples].
        num_classes: Number of outputs.
        seed: Seed of the folds.
        groups: int [num_examples]: examples of one group go to the same fold; by default each is its own.
        class_weights: Weight of the examples of each class; by default 1.
    """
    weights = example_weights(labels, class_weights)
    folds = assign_folds(labels, groups, num_folds=NUM_FOLDS, seed=seed)
    chosen = _some(len(labels), num_classes, seed)
    features, labels, weights, folds = features[chosen], labels[chosen], weights[chosen], folds[chosen]
    if len(np.unique(folds)) < 2:
        # A single example or group: no out-of-fold prediction is possible.
        return CrossValidation(
            l2=STRENGTHS[0],
            temperature=1.0,
            accuracy=0.0,
            cross_entropy=float("inf"),
            num_examples=len(labels),
        )
    path = _Path(features, labels, weights, folds, num_classes)
    found: list[CrossValidation] = []
    best = 0
    for l2 in STRENGTHS:
        logits = path.out_of_fold(l2)
        temperature = fit_temperature(logits, labels, weights)
        found.append(
            CrossValidation(
                l2=l2,
                temperature=temperature,
                accuracy=float((weights * (logits.argmax(axis=1) == labels)).sum() / weights.sum()),
                cross_entropy=cross_entropy(logits / temperature, labels, weights),
                num_examples=len(labels),
            )
        )
        best = min(range(len(found)), key=lambda i: found[i].cross_entropy)
        if len(found) - 1 - best >= _PATIENCE:
            break
    return found[best]


def example_weights(labels: np.ndarray, class_weights: Sequence[float] | None) -> np.ndarray:
    """Returns the weight of each example, float64 [num_examples]; 1 without class weights."""
    return np.ones(len(labels)) if class_weights is None else np.asarray(class_weights, np.float64)[labels]


class _Path:
    """Fits the heads of all folds along a path of decreasing strengths."""

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray,
        folds: np.ndarray,
        num_classes: int,
    ) -> None:
        self._features, self._folds = features, folds
        self._num_classes = num_classes
        self._problems = {
            int(fold): HeadProblem(
                features[folds != fold],
                labels[folds != fold],
                num_classes=num_classes,
                weights=weights[folds != fold],
            )
            for fold in np.unique(folds)
        }
        self._heads: dict[int, LinearHead] = {}

    def out_of_fold(self, l2: float) -> np.ndarray:
        """Returns the logits of each example by the head that was not fitted to its fold."""
        logits = np.zeros((len(self._folds), self._num_classes))
        for fold, problem in self._problems.items():
            self._heads[fold] = _fit(problem, l2, self._heads.get(fold))
            logits[self._folds == fold] = self._heads[fold].logits(self._features[self._folds == fold])
        return logits


def _fit(problem: HeadProblem, l2: float, start: LinearHead | None) -> LinearHead:
    return problem.fit(l2, start=start, tolerance=_TOLERANCE, max_iterations=_MAX_ITERATIONS)


def assign_folds(labels: np.ndarray, groups: np.ndarray | None, *, num_folds: int, seed: int) -> np.ndarray:
    """Returns the fold of each example, int64: stratified by class, with groups kept together.

    Each group, largest first, goes to the fold that has the fewest examples of its classes so far.
    """
    generator = np.random.default_rng(seed)
    if groups is None:
        return _deal_classes(labels, num_folds, generator)
    _, members = np.unique(groups, return_inverse=True)
    num_groups = int(members.max()) + 1
    counts = np.zeros((num_groups, int(labels.max()) + 1))
    np.add.at(counts, (members, labels), 1)
    # Each class has the same weight, whatever its size.
    counts /= counts.sum(axis=0).clip(1)
    order = generator.permutation(num_groups)
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    held, folds = np.zeros((num_folds, counts.shape[1])), np.zeros(num_groups, np.int64)
    for group in order:
        fold = int(((held + counts[group]) ** 2 - held**2).sum(axis=1).argmin())
        folds[group] = fold
        held[fold] += counts[group]
    return folds[members]


def _deal_classes(labels: np.ndarray, num_folds: int, generator: np.random.Generator) -> np.ndarray:
    order = generator.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    folds = np.empty(len(labels), np.int64)
    folds[order] = np.arange(len(labels)) % num_folds
    return folds


def _some(num_examples: int, num_classes: int, seed: int) -> np.ndarray:
    """Returns the positions of the examples to compare on: all, or a sufficient number, in ascending order."""
    most = min(MAX_EXAMPLES, max(_MIN_EXAMPLES, _MAX_LOGITS // num_classes))
    if num_examples <= most:
        return np.arange(num_examples)
    return np.sort(np.random.default_rng(seed).permutation(num_examples)[:most])


def predict_out_of_fold(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    seed: int,
    groups: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the out-of-fold predictions of calibrated heads, fold by fold.

    Args:
        features: float16 or float32 [num_examples, num_features].
        labels: int [num_examples].
        num_classes: Number of outputs.
        seed: Seed of the folds.
        groups: int [num_examples]: examples of one group go to the same fold; by default each is its own.

    Yields:
        The positions of the examples of a fold, int64 [n], and their probabilities, float32 [n, num_classes].
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(labels))[:_MAX_CHOSEN_ON])
    found = cross_validate(
        features[chosen],
        labels[chosen],
        num_classes=num_classes,
        seed=seed,
        groups=None if groups is None else groups[chosen],
    )
    folds = assign_folds(labels, groups, num_folds=NUM_FOLDS, seed=seed)
    for fold in np.unique(folds):
        rows, others = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        if len(others):
            problem = HeadProblem(features[others], labels[others], num_classes=num_classes)
            logits = _fit(problem, found.l2, None).logits(features[rows])
            yield rows, np.exp(log_softmax(logits / found.temperature)).astype(np.float32)


def choose_head(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    seed: int,
    groups: np.ndarray | None = None,
    class_weights: Sequence[float] | None = None,
) -> tuple[LinearHead, CrossValidation]:
    """Returns a calibrated head fitted to all examples, and the cross-validation that chose its regularization.

    Args:
        features: float16 or float32 [num_examples, num_features].
        labels: int [num_examples].
        num_classes: Number of outputs.
        seed: Seed of the folds.
        groups: int [num_examples]: examples of one group must not be on both sides of a fold.
        class_weights: Weight of the examples of each class; by default 1.
    """
    options: Any = {
        "num_classes": num_classes,
        "seed": seed,
        "groups": groups,
        "class_weights": class_weights,
    }
    found = cross_validate(features, labels, **options)
    weights = example_weights(labels, class_weights)
    problem = HeadProblem(features, labels, num_classes=num_classes, weights=weights)
    head = None
    for l2 in STRENGTHS[: STRENGTHS.index(found.l2) + 1]:
        head = _fit(problem, l2, head)
    if head is None:
        raise ValueError(f"{found.l2} is none of the strengths")
    return head.calibrated(found.temperature), found
