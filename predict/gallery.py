"""The pictures that are kept to be looked at: the wrong ones first, the highest loss first."""

import base64
import dataclasses
import heapq
import io

import numpy as np
from PIL import Image

from predict.prediction import Prediction, Record

# 200 pictures of this size make a page of 17 MB. Originals from a camera are a hundred times larger.
_LARGEST_BYTES = 64 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture.

    Attributes:
        media_type: "image/jpeg" or "image/png".
        content: The encoded bytes.
        is_record: Whether they are the record's own; else they were made from the pixels that the model saw.
    """

    media_type: str
    content: bytes
    is_record: bool

    @property
    def data_uri(self) -> str:
        """The picture as an address that holds all of it."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.content).decode('ascii')}"

    def pixels(self) -> np.ndarray:
        """Returns uint8 [height, width, 3] RGB; EXIF does not turn it, as it does not for the model."""
        with Image.open(io.BytesIO(self.content)) as image:
            return np.asarray(image.convert("RGB"))


@dataclasses.dataclass(frozen=True, slots=True)
class Shown:
    """A prediction with its picture."""

    prediction: Prediction
    picture: Picture


class Gallery:
    """Keeps the pictures of at most `size` predictions: the wrong ones first, the highest loss first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[tuple[bool, float, int], Shown]] = []  # The first to go is at index 0.
        self._num_offered = 0

    def offer(self, prediction: Prediction, pixels: np.ndarray) -> None:
        """Keeps the prediction if it is among the first so far.

        Args:
            prediction: Of the record whose bytes are kept.
            pixels: uint8 [image_size, image_size, 3], as the model saw them.
        """
        # Of equals the earlier one stays, and no two entries are equal.
        rank = (not prediction.right, prediction.loss, -self._num_offered)
        self._num_offered += 1
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, (rank, Shown(prediction, make_picture(prediction.record, pixels))))
        elif self._heap and rank > self._heap[0][0]:
            kept = Shown(prediction, make_picture(prediction.record, pixels))
            heapq.heapreplace(self._heap, (rank, kept))

    def pictures(self) -> list[Shown]:
        """Returns what is kept, the wrong ones first, the highest loss first."""
        return [shown for _, shown in sorted(self._heap, key=lambda entry: entry[0], reverse=True)]


def make_picture(record: Record, pixels: np.ndarray) -> Picture:
    """Returns the record's own bytes where a browser can show them and they are not too many.

    Else a picture of what the model saw: lossless for raw pixels, JPEG for large photos.
    """
    if record.media_type is None:
        return Picture("image/png", _encode(pixels, "PNG"), is_record=False)
    if len(record.encoded) > _LARGEST_BYTES:
        return Picture("image/jpeg", _encode(pixels, "JPEG"), is_record=False)
    return Picture(record.media_type, record.encoded, is_record=True)


def _encode(pixels: np.ndarray, image_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, quality=90)
    return buffer.getvalue()
