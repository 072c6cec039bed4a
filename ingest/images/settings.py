"""How images are checked, resized and stored."""

import dataclasses
from typing import Literal

Resize = Literal["stretch", "crop", "pad"]
Encoding = Literal["jpeg", "png", "raw"]
Check = Literal["full", "header"]

MAX_STORED_SIZE = 8192  # Pixels: an image is then 0.2 GB, and a worker holds two or three at once.


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ImageSettings:
    """How images are stored.

    Attributes:
        size: Height and width in pixels of every stored image; None where each keeps its own.
        resize: How an image that is not square becomes square, at ingest or, for originals, in training.
        encoding: The format of images that could not keep their own bytes.
        quality: JPEG quality, 1 to 100.
    """

    size: int | None
    resize: Resize
    encoding: Encoding
    quality: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ProcessingSettings:
    """How a file is judged, and what is stored of it: all that decides the result of the map step but the file.

    Attributes:
        image: How images are stored.
        check: "full" decodes every image to the end; "header" looks at no more than its header.
        max_pixels: An image that says it has more is rejected before it is decoded.
    """

    image: ImageSettings
    check: Check
    max_pixels: int
