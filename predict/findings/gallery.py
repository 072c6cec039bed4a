"""Chooses the images of the gallery and loads them."""

import dataclasses
from collections.abc import Callable

import numpy as np

from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.predict.inference.classifier import BATCH_SIZE
from shardstream.predict.inference.prediction import Prediction
from shardstream.predict.inference.prediction_table import PredictionTable
from shardstream.predict.inference.records import read_batches
from shardstream.predict.inference.selection import Sampling
from shardstream.predict.inference.thumbnails import Picture, make_picture
from shardstream.train.runs.saved_model import ModelInfo

# Maximum fraction of incorrect predictions among the images shown, if there are enough of both.
_WRONG_SHARE = 0.75


@dataclasses.dataclass(frozen=True, slots=True)
class Shown:
    """A prediction with its image."""

    prediction: Prediction
    picture: Picture


def choose_rows(
    outcomes: PredictionTable, sampling: Sampling, size: int, *, seed: int, named: np.ndarray
) -> np.ndarray:
    """Returns int64 rows of `outcomes`, at most `size`: the images to show, most important first.

    If the sampling ranks (worst, confident-errors, borderline), these are the first of the ranking. Otherwise all
    images, or if there are too many: mostly errors, first one of each confused pair of classes, then the highest
    losses; and of the correct predictions half with a small margin and half at random, so that every filter finds
    something.

    Args:
        outcomes: The predictions.
        sampling: The sampling that the user requested.
        size: Maximum number of rows.
        seed: Seed of the random correct predictions.
        named: Rows that other parts of the page refer to; they are taken first.
    """
    match sampling:
        case "worst":
            return _ranked(-outcomes.losses)[:size]
        case "confident-errors":
            wrong = np.flatnonzero(~outcomes.right)
            return wrong[_ranked(-outcomes.probabilities[wrong])][:size]
        case "borderline":
            return _ranked(outcomes.margins)[:size]
    if len(outcomes) <= size:
        rows = np.arange(len(outcomes))
    else:
        named = np.unique(named)[:size]
        left = np.setdiff1d(np.arange(len(outcomes)), named)
        wrong, right = left[~outcomes.right[left]], left[outcomes.right[left]]
        size -= len(named)
        num_wrong = max(min(len(wrong), int(_WRONG_SHARE * size)), size - len(right))
        rows = np.concatenate(
            [
                named,
                _some_wrong(outcomes, wrong, num_wrong),
                _some_right(outcomes, right, size - num_wrong, seed),
            ]
        )
    return rows[np.lexsort((rows, -outcomes.losses[rows], outcomes.right[rows]))]


def load_shown(
    info: DatasetInfo,
    split_name: str,
    outcomes: PredictionTable,
    rows: np.ndarray,
    *,
    model: ModelInfo,
    max_bytes: int,
    on_progress: Callable[[int], None] = lambda _: None,
) -> list[Shown]:
    """Returns the images of `rows`, in order, read again from their shards.

    Args:
        info: The dataset.
        split_name: The predicted split.
        outcomes: The predictions of its records.
        rows: int64, rows of `outcomes` without repetition.
        model: Metadata of the model, for its image settings.
        max_bytes: Maximum size per image.
        on_progress: Called with the number of images just read.
    """
    ordered = np.sort(rows)
    shown: dict[int, Shown] = {}
    batches = read_batches(
        info,
        split_name,
        outcomes.positions[ordered],
        image_size=model.image_size,
        resize=model.resize,
        batch_size=BATCH_SIZE,
    )
    for batch in batches if len(rows) else ():
        for record, pixels in zip(batch.records, batch.images, strict=True):
            row = int(ordered[len(shown)])
            prediction = Prediction(
                record=record,
                top_labels=outcomes.top_labels[row],
                top_probabilities=outcomes.top_probabilities[row],
                actual_probability=float(outcomes.actual_probabilities[row]),
            )
            shown[row] = Shown(prediction, make_picture(record, pixels, max_bytes=max_bytes))
        on_progress(len(batch.records))
    return [shown[int(row)] for row in rows]


def _ranked(keys: np.ndarray) -> np.ndarray:
    return np.argsort(keys, kind="stable")


def _some_wrong(outcomes: PredictionTable, wrong: np.ndarray, count: int) -> np.ndarray:
    wrong = wrong[_ranked(-outcomes.losses[wrong])]
    pairs = outcomes.labels[wrong].astype(np.int64) << 32 | outcomes.predicted[wrong]
    _, firsts, sizes = np.unique(pairs, return_index=True, return_counts=True)
    # The worst of each pair, most frequent pairs first, for half of the places.
    of_pairs = firsts[_ranked(-sizes)][: count // 2]
    rest = np.setdiff1d(np.arange(len(wrong)), of_pairs)
    return wrong[np.concatenate([of_pairs, rest])[:count]]


def _some_right(outcomes: PredictionTable, right: np.ndarray, count: int, seed: int) -> np.ndarray:
    nearly_wrong = right[_ranked(outcomes.margins[right])][: count // 2]
    others = np.setdiff1d(right, nearly_wrong)
    drawn = np.random.default_rng(seed).choice(others, count - len(nearly_wrong), replace=False)
    return np.concatenate([nearly_wrong, drawn])
