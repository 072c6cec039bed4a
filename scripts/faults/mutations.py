"""Corrupts images as disks, networks and attackers do, each a pure function of a seed and a number."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image


class Source(NamedTuple):
    """An image before corruption: its content, and the suffix of its name."""

    data: bytes
    suffix: str


class Mutated(NamedTuple):
    """A corrupted image, and the kind of corruption: a key of `MUTATIONS`."""

    kind: str
    data: bytes
    suffix: str


def load_sources(folder: Path) -> list[Source]:
    """Returns all files in `folder`, in the order of their paths."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return [Source(path.read_bytes(), path.suffix) for path in paths]


def draw_sources() -> list[Source]:
    """Returns small images in all formats and many of their variants."""
    coarse = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    rgb = Image.fromarray(coarse).resize((150, 110), Image.Resampling.BICUBIC)
    rgba = Image.merge("RGBA", (*rgb.split(), rgb.getchannel(0)))
    deep = Image.fromarray(np.asarray(rgb)[:, :, 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    drawn: list[tuple[Image.Image, str, dict[str, object]]] = [
        *(
            (rgb, "JPEG", {"subsampling": chosen, "progressive": way})
            for chosen in (0, 1, 2)
            for way in (0, 1)
        ),
        (rgb, "JPEG", {"restart_marker_blocks": 3}),
        (rgb, "JPEG", {"exif": exif}),
        (rgb.convert("L"), "JPEG", {}),
        (rgb.convert("CMYK"), "JPEG", {}),
        *(
            (image, "PNG", {})
            for image in (rgb, rgba, deep, rgb.convert("L"), rgb.quantize(60), rgb.convert("1"))
        ),
        (rgb, "PNG", {"exif": exif}),
        (rgb, "PNG", {"save_all": True, "append_images": [rgb.rotate(90)]}),
        (rgb, "GIF", {"save_all": True, "append_images": [rgb.rotate(90)]}),
        *(
            (rgb, "TIFF", {"compression": name})
            for name in ("raw", "tiff_lzw", "jpeg", "packbits", "tiff_deflate")
        ),
        *((image, "TIFF", {}) for image in (rgba, deep, rgb.convert("CMYK"), rgb.convert("F"))),
        (rgb.convert("1"), "TIFF", {"compression": "group4"}),
        *((image, "WEBP", {"lossless": way}) for image in (rgb, rgba) for way in (False, True)),
        (rgb, "WEBP", {"save_all": True, "append_images": [rgb.rotate(90)]}),
        *((image, name, {}) for image in (rgb, rgba) for name in ("AVIF", "JPEG2000")),
        *((image, "BMP", {}) for image in (rgb, rgba, rgb.quantize(60))),
        (rgba, "ICO", {}),
        *((image, "PPM", {}) for image in (rgb, deep)),
    ]
    return [Source(_encode(image, name, options), f".{name.lower()}") for image, name, options in drawn]


def mutate(sources: list[Source], seed: int, number: int) -> Mutated:
    """Returns image `number` of the campaign `seed`."""
    draw = random.Random(f"{seed} {number}")
    kind = draw.choice(list(MUTATIONS))
    source = draw.choice(sources)
    return Mutated(kind, bytes(MUTATIONS[kind](bytearray(source.data), draw, sources)), source.suffix)


def _encode(image: Image.Image, name: str, options: dict[str, object]) -> bytes:
    out = io.BytesIO()
    image.save(out, name, **options)
    return out.getvalue()


def _place(data: bytearray, draw: random.Random) -> int:
    # Half of them among the first bytes, where formats have their headers.
    return draw.randrange(max(1, min(len(data), 400 if draw.random() < 0.5 else len(data))))


def _flip(data: bytearray, draw: random.Random, _: list[Source]) -> bytearray:
    for _bit in range(draw.choice([1, 1, 2, 8]) if data else 0):
        data[_place(data, draw)] ^= 1 << draw.randrange(8)
    return data


def _set(data: bytearray, draw: random.Random, _: list[Source]) -> bytearray:
    place, length = _place(data, draw), draw.choice([1, 2, 4])
    data[place : place + length] = draw.choice([bytes(length), b"\xff" * length, draw.randbytes(length)])
    return data


def _cut(data: bytearray, draw: random.Random, _: list[Source]) -> bytearray:
    return data[: _place(data, draw)]


def _zero(data: bytearray, draw: random.Random, _: list[Source]) -> bytearray:
    place = _place(data, draw)
    length = min(draw.choice([16, 512, 4096]), len(data) - place)
    data[place : place + length] = bytes(length)
    return data


def _double(data: bytearray, draw: random.Random, _: list[Source]) -> bytearray:
    place, length = _place(data, draw), draw.choice([1, 16, 512, 4096])
    return data[: place + length] + data[place:]


def _drop(data: bytearray, draw: random.Random, _: list[Source]) -> bytearray:
    place, length = _place(data, draw), draw.choice([1, 16, 512, 4096])
    return data[:place] + data[place + length :]


def _splice(data: bytearray, draw: random.Random, sources: list[Source]) -> bytearray:
    """Joins the start of one image and the end of another, mostly of the same format."""
    alike = [source.data for source in sources if source.data[:3] == data[:3]]
    other = draw.choice(alike) if alike and draw.random() < 0.8 else draw.choice(sources).data
    return data[: _place(data, draw)] + other[_place(bytearray(other), draw) :]


def _inflate(data: bytearray, draw: random.Random, _: list[Source]) -> bytearray:
    """Changes the size in the header: slightly or enormously larger than the data, or smaller."""
    size = draw.choice([0, 1, draw.randrange(1, 300), draw.randrange(300, 9000), 16_000, 65_000, 2**31 - 1])
    for mark, place, field in _SIZE_FIELDS:
        start = data.find(mark)
        for side in range(2):
            at = start + place + side * struct.calcsize(field)
            if start >= 0 and at + 4 <= len(data) and draw.random() < 0.7:
                struct.pack_into(field, data, at, min(size, 256 ** struct.calcsize(field) // 2 - 1))
    if data.startswith(b"\x89PNG") and len(data) > 33:  # With a valid checksum, or decoders would stop here.
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    return data


# Location of height and width by format: marker, offset from it, and encoding.
_SIZE_FIELDS = [
    (b"\xff\xc0", 5, ">H"),
    (b"\xff\xc2", 5, ">H"),
    (b"IHDR", 4, ">I"),
    (b"GIF8", 6, "<H"),
    (b"BM", 18, "<i"),
    (b"VP8X", 12, "<H"),
    (b"\x9d\x01\x2a", 3, "<H"),
    (b"VP8L", 9, "<H"),
    (b"ispe", 8, ">I"),
    (b"ihdr", 4, ">I"),
    (b"\xff\x51", 6, ">I"),
    (b"\x00\x01\x03\x00\x01\x00\x00\x00", 8, "<H"),
    (b"\x01\x01\x03\x00\x01\x00\x00\x00", 8, "<H"),
    (b"\x00\x01\x04\x00\x01\x00\x00\x00", 8, "<I"),
    (b"\x01\x01\x04\x00\x01\x00\x00\x00", 8, "<I"),
]

MUTATIONS: dict[str, Callable[[bytearray, random.Random, list[Source]], bytearray]] = {
    "bits flipped": _flip,
    "bytes set": _set,
    "cut": _cut,
    "zeroed": _zero,
    "doubled": _double,
    "dropped": _drop,
    "spliced": _splice,
    "another size": _inflate,
}
