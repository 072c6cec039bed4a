"""A trained model as a Python API: returns classes and probabilities of images, prepared as in training."""

import dataclasses
import io
import itertools
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from shardstream.ingest.common.cpu_limits import usable_cores
from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.common.safe_files import read_regular
from shardstream.ingest.images.process import process_image
from shardstream.ingest.images.settings import Resize
from shardstream.predict.inference.classifier import BATCH_SIZE, Predictor, load_predictor
from shardstream.train.data.pixels import decode_images

# The same limit as for files on the command line.
_MAX_PIXELS = 100_000_000
_MAX_FILE_BYTES = 400_000_000

ImageSource = str | os.PathLike[str] | bytes | np.ndarray


class ImageReadError(DatasetError, ValueError):
    """An image cannot be read; the message names it and the reason."""


@dataclasses.dataclass(frozen=True, slots=True)
class ImagePrediction:
    """Prediction for one image.

    Attributes:
        class_name: The most probable class; the first one in case of a tie.
        probability: Probability of that class.
        probabilities: Probability of every class by name, in label order.
    """

    class_name: str
    probability: float
    probabilities: dict[str, float]


class ImageClassifier:
    """A trained model, safe to use from several threads.

    Attributes:
        class_names: Class names in label order.
        display_names: Names shown to people for each class, in the same order.
        image_size: Height and width of the model input in pixels.
    """

    def __init__(self, predictor: Predictor) -> None:
        """Takes a loaded model; `load_image_classifier` loads that of a run."""
        info = predictor.info
        self._predictor = predictor
        self._stored = info.stored
        self._resize: Resize = info.resize
        self.class_names: Sequence[str] = info.class_names
        self.display_names: Sequence[str] = info.display_names
        self.image_size = info.image_size

    def predict(self, images: ImageSource | Iterable[ImageSource]) -> list[ImagePrediction]:
        """Returns a prediction for each image, in order: the same as `shardstream-predict RUN IMAGES` writes.

        Each image is decoded, turned upright, stored and resized as for the training dataset, in memory.

        Args:
            images: Paths, the bytes of files, or RGB pixels, uint8 [height, width, 3]; any mixture of them.

        Raises:
            ImageReadError: An image is unusable; names it and the reason. A DatasetError and ValueError.
        """
        if isinstance(images, str | bytes | os.PathLike) or (
            isinstance(images, np.ndarray) and images.ndim == 3
        ):
            images = [images]
        found: list[ImagePrediction] = []
        numbered = enumerate(images)
        with ThreadPoolExecutor(usable_cores()) as threads:
            while batch := list(itertools.islice(numbered, BATCH_SIZE)):
                stored = list(threads.map(self._prepare, batch))
                pixels = decode_images(stored, self._stored, image_size=self.image_size, resize=self._resize)
                probabilities = self._predictor.predict_images(pixels, f"image {batch[0][0]}")
                found += [self._prediction(row) for row in probabilities]
        return found

    def _prepare(self, numbered: tuple[int, ImageSource]) -> bytes:
        number, source = numbered
        name, suffix, data = _read(number, source)
        processed = process_image(data, suffix, image=self._stored, max_pixels=_MAX_PIXELS)
        if processed.verdict == "rejected":
            raise ImageReadError(f"{name}: {processed.reason}")
        return processed.stored

    def _prediction(self, probabilities: np.ndarray) -> ImagePrediction:
        values = probabilities.tolist()
        label = int(probabilities.argmax())
        return ImagePrediction(
            class_name=self.class_names[label],
            probability=values[label],
            probabilities=dict(zip(self.class_names, values, strict=True)),
        )


def load_image_classifier(run_dir: Path) -> ImageClassifier:
    """Loads the best model of a run.

    Raises:
        DatasetError: The run has no model, or one that would run code of its own.
    """
    return ImageClassifier(load_predictor(run_dir))


def _read(number: int, source: ImageSource) -> tuple[str, str, bytes]:
    """Returns the name of an image for errors, the suffix of its file, and its bytes."""
    if isinstance(source, bytes):
        return f"image {number}", "", source
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            raise ImageReadError(
                f"image {number}: expected RGB pixels, uint8 [height, width, 3], "
                f"got {source.dtype} {list(source.shape)}"
            )
        buffer = io.BytesIO()
        Image.fromarray(source).save(buffer, "PNG", compress_level=1)
        return f"image {number}", ".png", buffer.getvalue()
    path = Path(source)
    try:
        return str(path), path.suffix, read_regular(path, max_bytes=_MAX_FILE_BYTES)
    except (OSError, ValueError) as error:
        raise ImageReadError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from error
