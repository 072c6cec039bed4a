"""How images are checked, resized and stored."""

import dataclasses
from typing import Literal

Resize = Literal["stretch", "crop", "pad"]
Encoding = Literal["jpeg", "png", "raw"]
Check = Literal["full", "header"]

MAX_STORED_SIZE = 8192  # In pixels: an image is then 0.2 GB, and a worker holds two or three at once.


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ImageSettings:
    """How images are stored.

    Attributes:
        size: Height and width in pixels of every stored image; None if each keeps its own.
        resize: How an image becomes square, at ingest or, for original sizes, in training.
        encoding: The format of images that cannot keep their own bytes.
        quality: JPEG quality, 1 to 100.
    """

    size: int | None
    resize: Resize
    encoding: Encoding
    quality: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ProcessingSettings:
    """How a file is processed and stored: all settings that determine the result of the map step.

    Attributes:
        image: How images are stored.
        check: "full" decodes every image to the end; "header" reads only its header.
        max_pixels: Images with more pixels according to their header are rejected before they are decoded.
    """

    image: ImageSettings
    check: Check
    max_pixels: int
