"""Draws the demo photos: three categories, in them what real folders hold as well (broken, turned, twice there).

Usage: python -m scripts.demo_images OUT [--count 200] [--seed 7]

A picture depends on nothing but (seed, category, number): the same versions of OpenCV and Pillow write the same bytes.
"""

import argparse
import functools
import io
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from scripts.demo_images.canvas import Canvas, Pixels, Rng, any_color, choose, photograph
from scripts.demo_images.exterior import paint_exterior
from scripts.demo_images.food import paint_food
from scripts.demo_images.interior import paint_interior

SCENES: dict[str, Callable[[Rng, Canvas], None]] = {
    "food": paint_food,
    "interior": paint_interior,
    "exterior": paint_exterior,
}

_SIZES = ((240, 320), (320, 240), (288, 288), (240, 360), (200, 300), (300, 220))  # Height, width.
_EXIF_ORIENTATION = 0x0112
# How a phone held upright stores its picture: lying on its left side (6) or its right one (8).
_TURNS = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}

_EVERY_NTH_TURNED = 12
_EVERY_NTH_NESTED = 10
_EVERY_NTH_TWICE = 50
# Photos in the wrong folder, as in any real collection: the report shows them among the confident errors.
_EVERY_NTH_MISPLACED = 53


def draw_picture(seed: int, category: str, number: int) -> Pixels:
    """Returns one upright picture of `category`, RGB uint8 [height, width, 3]."""
    rng = np.random.default_rng([seed, list(SCENES).index(category), number])
    canvas = Canvas(*choose(rng, _SIZES), any_color(rng))
    SCENES[category](rng, canvas)
    return photograph(rng, canvas)


def picture_file(seed: int, count: int, position: int) -> tuple[str, bytes]:
    """Returns the path under the photo folder and the bytes of the picture at `position` in all categories."""
    categories = list(SCENES)
    category, number = categories[position // count], position % count
    picture = Image.fromarray(draw_picture(seed, category, number))
    folder = category
    if number % _EVERY_NTH_MISPLACED == _EVERY_NTH_MISPLACED // 2:
        folder = categories[(position // count + 1) % len(categories)]
    if number % _EVERY_NTH_NESTED == 3:
        folder += "/phone"
    if number % _EVERY_NTH_TURNED == 5:
        return f"{folder}/{category}_{number:04d}.jpg", _turned_jpeg(
            picture, orientation=6 + number // _EVERY_NTH_TURNED % 2 * 2
        )
    return f"{folder}/{category}_{number:04d}.jpg", _encoded(picture, "JPEG")


def odd_files(seed: int, count: int, drawn: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Yields what a folder of photos holds besides good JPEGs."""
    for path in list(drawn)[::_EVERY_NTH_TWICE]:
        yield path.replace(".jpg", " (copy).jpg"), drawn[path]
    extra = {category: Image.fromarray(draw_picture(seed, category, count)) for category in SCENES}
    yield "food/비빔밥.jpg", _encoded(extra["food"], "JPEG")
    yield "food/cut_out.png", _encoded(_see_through(extra["food"]), "PNG")
    yield "interior/for_print.jpg", _encoded(extra["interior"].convert("CMYK"), "JPEG")
    yield "exterior/png_inside.jpg", _encoded(extra["exterior"], "PNG")
    both = Image.fromarray(draw_picture(seed, "exterior", count + 1))
    yield "interior/veranda.jpg", _encoded(both, "JPEG")
    yield "exterior/veranda.jpg", _encoded(both, "JPEG")
    yield "food/.DS_Store", b"\0\0\0\1Bud1" + bytes(64)
    yield "exterior/Thumbs.db", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(64)
    whole = _encoded(extra["interior"], "JPEG")
    broken = [
        ("interior/cut_short.jpg", whole[: len(whole) // 3]),
        ("food/recipe.jpg", b"Fry the egg, lay it on the rice.\n"),
        ("exterior/empty.jpg", b""),
    ]
    # Never more than 1 %, which is what `shardstream-ingest build` lets pass.
    yield from broken[: len(drawn) // 120]


def write_photos(out: Path, count: int, seed: int) -> int:
    """Writes `count` pictures of each category and the odd files to `out`; returns the number of files."""
    draw = functools.partial(picture_file, seed, count)
    # Not forked: NumPy's OpenBLAS has threads. OpenCV's own threads only get into each other's way in a pool.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        files = dict(pool.map(draw, range(count * len(SCENES)), chunksize=8))
    files |= dict(odd_files(seed, count, files))
    for name, content in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return len(files)


def _encoded(picture: Image.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, quality=90)
    return buffer.getvalue()


def _turned_jpeg(picture: Image.Image, *, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = orientation
    buffer = io.BytesIO()
    picture.transpose(_TURNS[orientation]).save(buffer, "JPEG", quality=90, exif=exif)
    return buffer.getvalue()


def _see_through(picture: Image.Image) -> Image.Image:
    """Returns `picture` fading out to its edges."""
    y, x = np.mgrid[-1 : 1 : picture.height * 1j, -1 : 1 : picture.width * 1j]
    alpha = np.clip(3 * (1.2 - np.hypot(x, y)), 0, 1) * 255
    cut_out = picture.copy()
    cut_out.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    return cut_out


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Draws demo photos of food, interiors and exteriors.")
    parser.add_argument("out", type=Path, help="a folder that is not there yet, or empty")
    parser.add_argument("--count", type=int, default=200, help="pictures per category (200)")
    parser.add_argument("--seed", type=int, default=7, help="other seed, other pictures (7)")
    options = parser.parse_args()
    if options.count < 1:
        parser.error(f"--count has to be 1 or more, found {options.count}")
    if options.out.exists() and any(options.out.iterdir()):
        parser.error(f"{options.out} is not empty: name another folder")
    written = write_photos(options.out, options.count, options.seed)
    print(f"{written} files in {options.out}")
    return 0
