"""Classifies loose photos without labels, and writes a page and a table."""

import csv
import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.common.json_text import json_text
from shardstream.ingest.common.terminal import escape_control_chars
from shardstream.ingest.images.settings import Encoding
from shardstream.ingest.pipeline.loose_photos import JudgedPhoto, process_photos
from shardstream.predict.inference.classifier import BATCH_SIZE, Predictor, load_predictor
from shardstream.predict.inference.prediction_table import top_k
from shardstream.predict.inference.records import media_type
from shardstream.predict.inference.thumbnails import PICTURE_BYTES, Picture, picture_of
from shardstream.predict.output.prediction_files import CSV_ENCODING, guarded
from shardstream.predict.output.result import MAX_ROWS, PhotoReport
from shardstream.predict.output.staging import METRICS, PAGE, publish, staging_in
from shardstream.predict.page.formatting import percent
from shardstream.predict.page.render import render
from shardstream.predict.page.texts.languages import TEXTS, Language
from shardstream.train.data.pixels import decode_images
from shardstream.train.distributed.strategy import versions
from shardstream.train.runs.saved_model import ModelInfo

TABLE = "predictions.csv"

# Number of rejected files on the page; the table has all.
_MAX_REJECTED = 200


class _Gallery:
    """Keeps the least confident images of each predicted class, up to the same number for each."""

    def __init__(self, model: ModelInfo, size: int) -> None:
        self._encoding: Encoding = model.encoding
        self._size = size
        self._bytes = PICTURE_BYTES // max(1, size)
        self._heaps: list[list[tuple[float, int, dict[str, Any]]]] = [[] for _ in model.class_names]
        self._num_offered = 0
        self._num_kept = 0

    def offer(self, photo: JudgedPhoto, pixels: np.ndarray, probabilities: np.ndarray) -> None:
        heap = self._heaps[int(probabilities.argmax())]
        rank = (-float(probabilities.max()), -self._num_offered)
        self._num_offered += 1
        # An image replaces the most confident one of the largest class.
        largest = max(self._heaps, key=len) if self._num_kept >= self._size else None
        if not self._size or (largest is not None and len(heap) >= len(largest) and rank < heap[0][:2]):
            return
        heapq.heappush(heap, (*rank, self._card(photo, pixels, probabilities)))
        self._num_kept += 1
        if self._num_kept > self._size:
            heapq.heappop(max(self._heaps, key=len))
            self._num_kept -= 1

    def cards(self) -> list[list[dict[str, Any]]]:
        """Returns the cards of each class, least confident first."""
        return [
            [card for *_, card in sorted(heap, key=lambda e: e[:2], reverse=True)] for heap in self._heaps
        ]

    def _card(self, photo: JudgedPhoto, pixels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
        picture: Picture = picture_of(
            photo.judged.stored,
            media_type(photo.judged.stored, self._encoding),
            pixels,
            max_bytes=self._bytes,
        )
        return {
            "path": escape_control_chars(photo.path),
            "picture": picture.data_uri,
            "bars": [
                (int(label), float(probabilities[label])) for label in top_k(probabilities[np.newaxis])[0, :3]
            ],
            "height": photo.judged.source_size[0],
            "width": photo.judged.source_size[1],
            "repaired": escape_control_chars(photo.judged.reason),
        }


def check_out(out: Path, paths: Sequence[Path]) -> None:
    """Ensures that nothing is written into the folders of the photos.

    Raises:
        ConfigError: The report would be inside one of their folders.
    """
    for path in paths:
        folder = (path if path.is_dir() else path.parent).resolve()
        is_inside = out.resolve().is_relative_to(folder) if path.is_dir() else out.resolve() == folder
        if is_inside:
            raise ConfigError(
                f"--out {out}: lies among the photos of {folder}, where nothing is written; give another"
            )


def report_photos(
    run_dir: Path,
    paths: Sequence[str],
    *,
    out: Path,
    gallery_size: int,
    lang: Language,
    command: str,
    on_progress: Callable[[int], None],
) -> PhotoReport:
    """Predicts photos in one pass and writes index.html, predictions.csv and metrics.json.

    Photos are processed and stored as for the training dataset, so the model input is the same as that of a record.

    Args:
        run_dir: The folder of the training run.
        paths: The files.
        out: The report folder, created if missing; files of the same names are replaced, others stay.
        gallery_size: Maximum number of images on the page.
        lang: Language of the page.
        command: The command line, for the page.
        on_progress: Called with the number of files just processed.

    Raises:
        DatasetError: The run has no model, or no file is an image.
    """
    predictor = load_predictor(run_dir)
    info = predictor.info
    gallery = _Gallery(info, gallery_size)
    counts, verdicts = Counter[int](), Counter[str]()
    rejected: list[tuple[str, str]] = []
    predicted: list[tuple[str, str, float]] = []
    with staging_in(out) as staging:
        with (staging / TABLE).open(
            "w", encoding=CSV_ENCODING, errors="backslashreplace", newline=""
        ) as file:
            rows = csv.writer(file)
            columns = ["source_path", "source_sha256", "verdict", "reason", "predicted", "probability"]
            rows.writerow(map(guarded, [*columns, *(f"probability_{name}" for name in info.class_names)]))
            for photo, pixels, probabilities in _predict(predictor, paths, on_progress):
                verdicts[photo.judged.verdict] += 1
                rows.writerow(_row(photo, probabilities, info))
                if pixels is None or probabilities is None:
                    if len(rejected) < _MAX_REJECTED:
                        rejected.append((photo.path, photo.judged.reason))
                else:
                    label = int(probabilities.argmax())
                    counts[label] += 1
                    if len(predicted) < MAX_ROWS:
                        predicted.append((photo.path, info.display_names[label], float(probabilities[label])))
                    gallery.offer(photo, pixels, probabilities)
        if not counts:
            path, reason = rejected[0]
            summary = f"none of {len(paths):,} files is an image that can be used; " if len(paths) > 1 else ""
            raise DatasetError(f"{summary}{path}: {reason}")
        metrics = {
            "num_files": len(paths),
            "verdicts": dict(verdicts),
            "predicted": {name: counts[label] for label, name in enumerate(info.class_names)},
            "model": info.model,
            "versions": versions(),
            "command": command,
        }
        (staging / METRICS).write_text(json_text(metrics), encoding="utf-8")
        page = _page(info, gallery, counts, rejected, metrics, lang, run_dir)
        (staging / PAGE).write_text(page, encoding="utf-8", errors="backslashreplace")
        is_replaced = publish(staging, out, (TABLE, METRICS, PAGE))
    return PhotoReport(
        out=out, metrics=metrics, rejected=rejected, predicted=predicted, is_replaced=is_replaced
    )


def _predict(
    predictor: Predictor, paths: Sequence[str], on_progress: Callable[[int], None]
) -> Iterator[tuple[JudgedPhoto, np.ndarray | None, np.ndarray | None]]:
    """Yields each file with its pixels and probabilities; None if it was rejected."""
    model = predictor.info
    photos = process_photos(paths, model.stored)
    while batch := list(itertools.islice(photos, BATCH_SIZE)):
        kept = [photo for photo in batch if photo.judged.verdict != "rejected"]
        images = decode_images(
            [photo.judged.stored for photo in kept],
            model.stored,
            image_size=model.image_size,
            resize=model.resize,
        )
        said = predictor.predict_images(images, kept[0].path) if kept else np.empty((0, 0), np.float32)
        seen = iter(zip(images, said, strict=True))
        for photo in batch:
            yield (photo, None, None) if photo.judged.verdict == "rejected" else (photo, *next(seen))
        on_progress(len(batch))


def _row(photo: JudgedPhoto, probabilities: np.ndarray | None, info: ModelInfo) -> list[str]:
    said = [""] * (2 + len(info.class_names))
    if probabilities is not None:
        label = int(probabilities.argmax())
        said = [info.class_names[label], f"{probabilities[label]:.6f}", *(f"{p:.6f}" for p in probabilities)]
    judged = photo.judged
    return [
        guarded(text) for text in (_written(photo.path), photo.sha256, judged.verdict, judged.reason, *said)
    ]


def _written(path: str) -> str:
    # A name that is not UTF-8 cannot be written unchanged.
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _page(
    info: ModelInfo,
    gallery: _Gallery,
    counts: Counter[int],
    rejected: Sequence[tuple[str, str]],
    metrics: dict[str, Any],
    lang: Language,
    run_dir: Path,
) -> str:
    t, total = TEXTS[lang], sum(counts.values())
    groups = [
        {"label": label, "count": counts[label], "share": percent(counts[label] / total), "cards": cards}
        for label, cards in enumerate(gallery.cards())
        if counts[label]
    ]
    return render(
        "photos.html",
        t,
        {
            "run": escape_control_chars(run_dir.resolve().name),
            "model": escape_control_chars(info.model),
            "classes": [
                {"class_name": escape_control_chars(name), "display_name": escape_control_chars(display_name)}
                for name, display_name in zip(info.class_names, info.display_names, strict=True)
            ],
            "groups": sorted(groups, key=lambda group: -group["count"]),
            "num_predicted": total,
            "num_rejected": metrics["verdicts"].get("rejected", 0),
            "rejected": [
                (escape_control_chars(path), escape_control_chars(reason)) for path, reason in rejected
            ],
            "facts": [
                (t["provenance_command"], escape_control_chars(metrics["command"])),
                (
                    t["provenance_versions"],
                    ", ".join(f"{name} {v}" for name, v in metrics["versions"].items()),
                ),
            ],
        },
    )
