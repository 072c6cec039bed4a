"""A second, stricter check of pairs with similar perceptual hashes: are they copies of one image?

A perceptual hash keeps only the lowest frequencies, so different hands in front of one wall, or letters in one frame,
differ in few bits. Finer details tell them apart: the correlation of high-pass filtered 24x24 color thumbnails.
docs/benchmarks.md has the precision for each kind of pair.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shardstream.ingest.dataset.look_alikes import LookAlikes, PathPair
from shardstream.ingest.dataset.records import decode_example, unframe
from shardstream.ingest.execution.base import Engine
from shardstream.ingest.images.decode import decode, read_source
from shardstream.ingest.pipeline.catalog import Catalog
from shardstream.ingest.pipeline.listing import shown
from shardstream.ingest.pipeline.near_duplicates import Pairs, find_pairs, straddling

NEITHER, BURST, SAME = range(3)

_SIZE = 24
_BLUR_PIXELS = 1.5
# Copies at half the size, of JPEG quality 10, blurred, 20 % brighter or cropped by 2 % all have more than 0.94. The
# highest correlation of different images was 0.89.
_MIN_SAME = 0.93
_MIN_BURST = 0.6
_MAX_NUMBERS_APART = 3
# Below this the thumbnail has no details and the correlation is noise. In levels of 255.
_MIN_DETAIL_LEVELS = 1.0
_MAX_FLAT_DIFFERENCE = 2.0
_LUMA = np.array(
    [[0.299], [0.587], [0.114]], np.float32
)  # ITU-R BT.601, as JPEG and every conversion to gray.
_MAX_GRAY_DIFFERENCE = 3.0  # Between the colors of a gray image, in levels.
_PAIRS_PER_TASK = 64
# Of more leaks than this only a sample is compared: enough to estimate the precision of the rest.
_MAX_COMPARED = 200
_MAX_STORED = 100
_NUMBERED = re.compile(r"(.*?)(\d{1,15})(\D*)", re.DOTALL)

Thumbnails = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True)
class CompareTask:
    """Pairs of records to compare.

    Attributes:
        number: Number of the task.
        sources: The file of each record, without repetition of records.
        offsets: Byte offset of each record in its file.
        lengths: Bytes of each record including framing.
        pairs: The pairs, as indices of the records.
    """

    number: int
    sources: Sequence[str]
    offsets: Sequence[int]
    lengths: Sequence[int]
    pairs: Sequence[tuple[int, int]]


def find_leaks(catalog: Catalog, engine: Engine) -> LookAlikes:
    """Returns the pairs of near-duplicate images in different splits."""
    rows = np.flatnonzero(catalog.kept() & catalog.has_hash).astype(np.uint32)
    candidates = straddling(rows[find_pairs(catalog.hashes[rows])], catalog.splits)
    chosen = np.unique(
        np.linspace(0, len(candidates) - 1, min(_MAX_COMPARED, len(candidates))).astype(np.intp)
    )
    compared = candidates[chosen]
    kinds = compare(catalog, compared, engine)
    same, bursts = compared[kinds == SAME], compared[kinds == BURST]
    return LookAlikes(
        num_candidates=len(candidates),
        num_compared=len(compared),
        num_same=len(same),
        num_bursts=len(bursts),
        same=_paths(catalog, same),
        bursts=_paths(catalog, bursts),
    )


def compare(catalog: Catalog, pairs: Pairs, engine: Engine) -> npt.NDArray[np.uint8]:
    """Returns for each pair of rows whether it is SAME, BURST or NEITHER, uint8 [pairs].

    Args:
        catalog: The catalog with the locations of the records.
        pairs: Pairs of rows that have records, uint32 [pairs, 2].
        engine: The engine that decodes them.
    """
    likeness = np.zeros(len(pairs))
    for number, found in engine.run_all(correlate, _tasks(catalog, pairs), alone=correlate):
        likeness[number * _PAIRS_PER_TASK :][: len(found)] = found
    return classify(pairs, likeness, catalog.listing.path)


def classify(
    pairs: npt.NDArray[np.integer], likeness: npt.NDArray[np.float64], path: Callable[[int], str]
) -> npt.NDArray[np.uint8]:
    """Returns for each pair of rows whether it is SAME, BURST or NEITHER, uint8 [pairs].

    Args:
        pairs: Pairs of rows, [pairs, 2].
        likeness: The `correlation` of each pair.
        path: Returns the path of a row.
    """
    kinds = np.full(len(pairs), NEITHER, np.uint8)
    kinds[_find_bursts(pairs, likeness, path)] = BURST
    kinds[likeness >= _MIN_SAME] = SAME
    return kinds


def _find_bursts(
    pairs: npt.NDArray[np.integer], likeness: npt.NDArray[np.float64], path: Callable[[int], str]
) -> npt.NDArray[np.intp]:
    """Returns the indices of the similar pairs with consecutive numbers in their names.

    If most similar images are not consecutive, those that are occur by chance, such as letters in one handwriting.
    """
    similar = np.flatnonzero((likeness >= _MIN_BURST) & (likeness < _MIN_SAME))
    follow = np.array([_follow(path(one), path(other)) for one, other in pairs[similar].tolist()], bool)
    return similar[follow] if 3 * follow.sum() >= 2 * len(similar) else similar[:0]


def correlation(one: Thumbnails, other: Thumbnails) -> float:
    """Returns the correlation of the details of two thumbnails, from -1 to 1; 1 for two flat ones of one color."""
    if _is_gray(one) or _is_gray(other):  # A grayscale copy counts as a copy.
        one, other = one @ _LUMA, other @ _LUMA
    details = _details(one), _details(other)
    lengths = [float(np.linalg.norm(detail)) for detail in details]
    if min(lengths) < _MIN_DETAIL_LEVELS * np.sqrt(one.size):
        return float(np.abs(one - other).mean() <= _MAX_FLAT_DIFFERENCE)
    return float((details[0] * details[1]).sum()) / (lengths[0] * lengths[1])


def correlate(task: CompareTask) -> tuple[int, list[float]]:
    """Returns the number of a task, and the correlation of each of its pairs."""
    places = zip(task.sources, task.offsets, task.lengths, strict=True)
    thumbnails = [_thumbnail(*place) for place in places]
    return task.number, [correlation(thumbnails[one], thumbnails[other]) for one, other in task.pairs]


def _tasks(catalog: Catalog, pairs: Pairs) -> Iterator[CompareTask]:
    for number, start in enumerate(range(0, len(pairs), _PAIRS_PER_TASK)):
        chosen = pairs[start : start + _PAIRS_PER_TASK]
        rows = np.unique(chosen)
        yield CompareTask(
            number,
            [catalog.sources[source] for source in catalog.source_numbers[rows]],
            catalog.offsets[rows].tolist(),
            catalog.lengths[rows].tolist(),
            [(one, other) for one, other in np.searchsorted(rows, chosen).tolist()],
        )


def _thumbnail(source: str, offset: int, length: int) -> Thumbnails:
    with Path(source).open("rb", buffering=0) as file:
        file.seek(offset)
        example = decode_example(unframe(file.read(length)))
    image, height, width = example["image"], int(example["image/height"]), int(example["image/width"])
    if not isinstance(image, bytes):
        raise TypeError("the feature 'image' is a number")
    if len(image) == height * width * 3:  # Raw pixels.
        rgb = np.frombuffer(image, np.uint8).reshape(height, width, 3)
    else:
        rgb = decode(read_source(image, "", height * width), min_size=2 * _SIZE).rgb
    return make_thumbnail(rgb)


def make_thumbnail(rgb: npt.NDArray[np.uint8]) -> Thumbnails:
    """Returns the thumbnail that `correlation` compares; `rgb` is uint8 [height, width, 3]."""
    import cv2

    return np.asarray(cv2.resize(rgb, (_SIZE, _SIZE), interpolation=cv2.INTER_AREA), np.float32)


def _details(thumbnail: Thumbnails) -> Thumbnails:
    import cv2

    blurred = cv2.GaussianBlur(thumbnail, (0, 0), _BLUR_PIXELS, borderType=cv2.BORDER_REFLECT)
    detail = thumbnail - blurred.reshape(thumbnail.shape)
    return np.asarray(detail - detail.mean(), np.float32)


def _is_gray(thumbnail: Thumbnails) -> bool:
    return float(np.ptp(thumbnail, axis=2).mean()) <= _MAX_GRAY_DIFFERENCE


def _follow(one: str, other: str) -> bool:
    """Whether two files have consecutive numbers, like shots of one scene."""
    first, second = _NUMBERED.fullmatch(one), _NUMBERED.fullmatch(other)
    if first is None or second is None:
        return False
    apart = abs(int(first[2]) - int(second[2]))
    return (first[1], first[3]) == (second[1], second[3]) and 0 < apart <= _MAX_NUMBERS_APART


def _paths(catalog: Catalog, pairs: Pairs) -> tuple[PathPair, ...]:
    path = catalog.listing.path
    return tuple((shown(path(one)), shown(path(other))) for one, other in pairs[:_MAX_STORED].tolist())
