import io
import random
import struct
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from shardstream.ingest.images.exif import read_orientation
from shardstream.ingest.images.jpeg import JpegError, read_header

SHARED = Path(__file__).resolve().parents[4] / "shared/data"


def tiff(*entries: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    packed = b"".join(
        struct.pack(f"{order}HHI", tag, kind, count) + value for tag, kind, count, value in entries
    )
    return mark + struct.pack(f"{order}IH", 8, len(entries)) + packed + bytes(4)


def short(value: int, order: str = "<") -> bytes:
    return struct.pack(f"{order}HH", value, 0)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_read_in_both_byte_orders(orientation, prefix, order):
    data = tiff((0x010F, 2, 4, b"Me \0"), (0x0112, 3, 1, short(orientation, order)), order=order)
    assert read_orientation(prefix + data) == orientation


@pytest.mark.parametrize(
    ("exif", "orientation"),
    [
        (b"", 1),
        (b"Exif\0\0", 1),
        (b"II*\0", 1),
        (b"II*\0\xff\xff\xff\xff", 1),  # A directory beyond the end.
        (b"II+\0" + tiff((0x0112, 3, 1, short(6)))[4:], 1),  # No TIFF.
        (tiff((0x0112, 3, 1, short(0))), 1),
        (tiff((0x0112, 3, 1, short(9))), 1),
        (tiff((0x0112, 3, 2, short(6))), 1),  # Two of them.
        (tiff((0x0112, 2, 1, b"6\0\0\0")), 1),  # A letter.
        (tiff((0x0112, 4, 1, struct.pack("<I", 6))), 6),  # LONG, as some write it.
        (
            tiff((0x010F, 2, 999, struct.pack("<I", 1 << 30)), (0x0112, 3, 1, short(6))),
            6,
        ),  # Another tag is broken.
        (tiff((0x0112, 3, 1, short(6)))[:22], 6),  # Cut behind it.
        (tiff((0x0112, 3, 1, short(6)))[:21], 1),  # Cut within it.
    ],
)
def test_broken_exif_is_no_exif(exif, orientation):
    assert read_orientation(exif) == orientation


def test_xmp_counts_where_exif_says_nothing():
    assert read_orientation(b"", b'<rdf:Description tiff:Orientation="6"/>') == 6
    assert read_orientation(b"", b"<tiff:Orientation>8</tiff:Orientation>") == 8
    assert read_orientation(tiff((0x0112, 3, 1, short(3))), b'tiff:Orientation="6"') == 3
    assert read_orientation(tiff((0x010F, 2, 4, b"Me \0")), b'tiff:Orientation="6"') == 6
    assert read_orientation(b"", b'tiff:Orientation="9"') == 1


def seen_by_pillow(data: bytes) -> int | None:
    """Returns the orientation; None where Pillow cannot open the file, 1 where its EXIF breaks Pillow."""
    try:
        image = Image.open(io.BytesIO(data), formats=["JPEG"])
    except Exception:
        return None
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return orientation if orientation in range(1, 9) else 1


def seen_here(data: bytes) -> int | None:
    try:
        return read_header(data).orientation
    except JpegError:
        return None


@pytest.mark.skipif(not SHARED.is_dir(), reason="the collections of images are not there")
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_all_photos_are_turned_as_pillow_turns_them():
    files = [path.read_bytes() for path in sorted(SHARED.rglob("*")) if path.is_file()]
    seen = [(seen_by_pillow(data), seen_here(data)) for data in files if data.startswith(b"\xff\xd8")]
    both = [(theirs, ours) for theirs, ours in seen if theirs and ours]
    assert [theirs for theirs, _ in both] == [ours for _, ours in both]
    assert len(both) > 800
    assert len({ours for _, ours in both}) == 8


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_of_broken_exif_nothing_is_seen_that_pillow_contradicts(photo):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x0131] = "a camera", 6, "a program"
    whole = photo(1, exif=exif)
    start = whole.index(b"Exif")
    draw = random.Random(0)
    agreed = 0
    for _ in range(1500):
        data = bytearray(whole)
        data[start + draw.randrange(90)] = draw.choice([0, 1, 3, 6, 8, 255, draw.randrange(256)])
        theirs, ours = seen_by_pillow(bytes(data)), seen_here(bytes(data))
        # One broken tag makes Pillow give up on all that follow; here it does not.
        assert theirs in {None, 1, ours}
        agreed += theirs == ours
    assert agreed > 1300
