"""What no decoder reads is called by its name."""

import struct

import pytest

from shardstream.ingest.images.file_marks import describe_unreadable, is_camera_raw


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (bytes(128) + b"DICM" + bytes(50), "no decoder: DICOM"),
        (b"\0\0\0\x18ftypisom\0\0\2\0", "a video (MP4 or QuickTime)"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0", "a video (MP4 or QuickTime)"),
        (b"RIFF\0\0\0\0AVI LIST", "a video (AVI)"),
        (b"\x1aE\xdf\xa3" + bytes(40), "a video (Matroska or WebM)"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no decoder: SVG"),
        (b"<?xml version='1.0'?>\n<svg/>", "no decoder: SVG"),
        (b"\xef\xbb\xbf  <!DOCTYPE html><html>", "a web page (HTML)"),
        ("<html>".encode("utf-16"), "a web page (HTML)"),
        (b"<?xml version='1.0'?><annotation/>", "text (XML)"),
        (b"\0\0\0\x18ftyphevx" + bytes(16), "no decoder: HEIC; pip install pillow-heif"),
        (b"FUJIFILMCCD-RAW 0201", "a camera's raw file"),
        (b"PK\x03\x04" + bytes(30), "an archive (ZIP"),
        (b"\x93NUMPY\1\0", "a NumPy array"),
        (bytes(4096), "4,096 bytes of 0"),
        (b"\xff" * 4096, "4,096 bytes of 255"),
        (b"/annex/objects/SHA256E-s1--a.jpg\n", "git-annex pointer"),
        (b"hello", "not an image: text"),
        (b"\1\2\3\4\5", "not an image: it starts with the bytes 01 02 03 04"),
    ],
)
def test_the_reason_names_what_the_file_is(data, reason):
    assert reason in describe_unreadable(data)


def ifd(entries, end):
    """A directory of a TIFF that starts at byte 8, of tags with one number each, and the bytes behind it."""
    packed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return struct.pack("<H", len(entries)) + packed + struct.pack("<I", 0) + end


def tiff(entries, sub=None):
    size = 8 + 2 + 12 * (len(entries) + (sub is not None)) + 4
    entries = entries | ({330: size} if sub is not None else {})
    return b"II*\0" + struct.pack("<I", 8) + ifd(entries, ifd(sub, b"") if sub is not None else b"")


@pytest.mark.parametrize(
    ("data", "suffix", "is_raw"),
    [
        (tiff({256: 160, 257: 120, 254: 1}, {256: 1200, 257: 900, 262: 32803}), ".NEF", True),
        (
            tiff({256: 160, 257: 120}, {256: 1200, 257: 900}),
            ".tif",
            True,
        ),  # The first image is the smaller one.
        (tiff({256: 160, 257: 120, 254: 1}, {256: 120, 257: 90}), ".tif", True),
        (tiff({256: 160, 257: 120, 50706: 1}), ".tif", True),
        (tiff({256: 160, 257: 120, 262: 32803}), ".tif", True),
        (tiff({256: 160, 257: 120}), ".ARW", True),
        (tiff({256: 160, 257: 120}), ".tif", False),
        (tiff({256: 1200, 257: 900}, {256: 160, 257: 120, 254: 1}), ".tif", False),  # A pyramid, as of maps.
        (tiff({256: 160, 257: 120, 330: 0xFFFFFFF0}), ".tif", False),
        (b"II*\0\xff\xff\xff\xff", ".tif", False),
        (b"\xff\xd8\xff", ".NEF", False),  # A JPEG under that name shows what it is.
    ],
)
def test_a_camera_raw_file_is_told_from_a_tiff(data, suffix, is_raw):
    assert is_camera_raw(data, suffix) == is_raw
