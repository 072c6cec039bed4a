"""From the bytes of a record to the pixels that a model sees: one definition, for training, evaluation and prediction.

A picture that is stored at the size of the model is decoded and nothing else. Any other is read and resized by the code
of ingest. A JPEG of at least twice the size is made smaller while it is decoded, never below the size of the model: of
12 megapixels that takes 23 ms where a whole decode takes 65, and 21 of them are Huffman's code, which has to be read in
any case. It is as near to TensorFlow's antialiased resizing as the mean over areas of the whole picture is, within 4
levels of 255 in the mean.
"""

import dataclasses

import numpy as np
import PIL
import simplejpeg

from shardstream.ingest.images.decode import decode, read_source
from shardstream.ingest.images.image_errors import ImageError
from shardstream.ingest.images.process import resize
from shardstream.ingest.images.settings import ImageSettings, Resize

# The number goes up with every change here that changes a pixel: pictures that were kept on disk are decoded anew then.
_VERSION = 1
_JPEG = b"\xff\xd8"
# What a dataset holds was let in when it was built.
_MAX_PIXELS = 1 << 40


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PictureDecoder:
    """Makes pixels of encoded pictures.

    Attributes:
        stored: How the pictures are stored.
        image_size: Height and width that the model sees.
        resize: How a picture that is not square becomes square.
    """

    stored: ImageSettings
    image_size: int
    resize: Resize

    def decode(self, encoded: memoryview, out: np.ndarray) -> None:
        """Writes one picture to `out`, uint8 [image_size, image_size, 3], RGB.

        Raises:
            ImageError: It cannot be decoded.
        """
        if self.stored.encoding == "raw":
            self._take_raw(encoded, out)
        elif not (self.stored.size == self.image_size and _decode_straight(encoded, out)):
            source = read_source(bytes(encoded), "", _MAX_PIXELS)
            rgb = decode(source, min_size=self.image_size).rgb
            out[:] = rgb if rgb.shape == out.shape else resize(rgb, self.image_size, self.resize)

    def _take_raw(self, encoded: memoryview, out: np.ndarray) -> None:
        size = self.stored.size
        if size is None or len(encoded) != size * size * 3:
            raise ImageError(f"{len(encoded)} bytes of raw pixels, expected {size} x {size} x 3")
        rgb = np.frombuffer(encoded, np.uint8).reshape(size, size, 3)
        out[:] = rgb if rgb.shape == out.shape else resize(rgb, self.image_size, self.resize)


def decoder_version() -> str:
    """Returns what the pixels depend on beside the record: of this code, and of the libraries that it uses."""
    import cv2

    return (
        f"{_VERSION}, simplejpeg {simplejpeg.__version__}, Pillow {PIL.__version__}, OpenCV {cv2.__version__}"
    )


def _decode_straight(encoded: memoryview, out: np.ndarray) -> bool:
    """Decodes a JPEG of the size of `out` into it, or returns False: it is something else."""
    if encoded[:2] != _JPEG:
        return False
    try:
        return simplejpeg.decode_jpeg(encoded, "RGB", buffer=out).shape == out.shape
    except ValueError:
        return False
