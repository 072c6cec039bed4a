"""Photos of camera size, made from small ones."""

from pathlib import Path

import cv2
import numpy as np
import simplejpeg

_SIDES = (4032, 3024)  # 12 megapixels.
_QUALITY = 92
# Sensor noise on the blurred enlargement: with it the files have 2.4 MB, nearly as those of a phone.
_NOISE = 4.0


def enlarge(source: Path, target: Path, count: int) -> None:
    """Writes `count` photos of 12 megapixels into category folders, all different, sampled evenly from `source`."""
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    noise = np.random.default_rng(0).normal(0, _NOISE, (_SIDES[1], _SIDES[0], 3)).astype(np.int16)
    for number in range(count):
        path = files[number * len(files) // count]
        small = simplejpeg.decode_jpeg(path.read_bytes(), "RGB")
        large = cv2.resize(small, _SIDES, interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(large + np.roll(noise, number), 0, 255).astype(np.uint8)
        copy = target / path.relative_to(source).parts[0] / f"{number}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(simplejpeg.encode_jpeg(noisy, _QUALITY, "RGB", "420", False))
