"""The minimum work on an image, the same for every way with a choice of decoder."""

from pathlib import Path

import cv2
import numpy as np
import simplejpeg

SIZE = 300
QUALITY = 95

cv2.setNumThreads(1)  # The processes are the parallelism.


def decode(path: str) -> np.ndarray:
    """Returns the photo as RGB uint8 [height, width, 3]."""
    return simplejpeg.decode_jpeg(Path(path).read_bytes(), "RGB")


def decode_and_resize(path: str) -> np.ndarray:
    """Returns the photo as RGB uint8 [300, 300, 3], stretched, by area averaging."""
    return cv2.resize(decode(path), (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def decode_resize_encode(path: str) -> bytes:
    """Returns the photo at 300x300 as a JPEG of quality 95 with 4:2:0 chroma subsampling."""
    return simplejpeg.encode_jpeg(decode_and_resize(path), QUALITY, "RGB", "420", False)
