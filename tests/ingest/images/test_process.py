import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from shardstream.ingest.images.process import process_image, resize
from shardstream.ingest.images.settings import ImageSettings


def settings(**changes) -> ImageSettings:
    return ImageSettings(**{"size": 32, "resize": "stretch", "encoding": "jpeg", "quality": 95} | changes)


def judged(data, image, suffix=".jpg", **options):
    return process_image(data, suffix, image=image, **{"max_pixels": 10**6} | options)


def save(image, file_format, **options):
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def test_a_clean_photo_of_the_right_size_keeps_its_bytes(photo):
    data = photo(1, size=(32, 32))
    result = judged(data, settings())
    assert (result.verdict, result.stored, result.size) == ("ok", data, (32, 32))
    assert judged(data, settings(size=None)).stored == data
    assert judged(data, settings(size=31)).stored != data


def test_originals_keep_size_and_bytes_unless_something_has_to_be_mended(photo):
    image = settings(size=None)
    assert judged(photo(1), image).stored == photo(1)
    webp = judged(photo(1, file_format="WEBP"), image, ".webp")
    assert webp.verdict == "repaired"
    assert Image.open(io.BytesIO(webp.stored)).format == "JPEG"
    assert webp.size == webp.source_size == (40, 60)


@pytest.mark.parametrize(("encoding", "tolerance"), [("jpeg", 5), ("png", 0), ("raw", 0)])
def test_what_is_stored_is_what_was_seen(photo, encoding, tolerance):
    seen = np.asarray(Image.open(io.BytesIO(photo(5))))
    stored = judged(photo(5), settings(encoding=encoding)).stored
    if encoding == "raw":
        found = np.frombuffer(stored, np.uint8).reshape(32, 32, 3)
    else:
        found = np.asarray(Image.open(io.BytesIO(stored)))
    assert np.abs(found.astype(int) - resize(seen, 32, "stretch")).mean() <= tolerance


def test_the_header_alone_is_believed_where_it_may_be(photo):
    broken = bytearray(photo(1, size=(200, 200)))
    broken[-300:-100] = bytes(200)  # Only a decoder sees that.
    original = settings(size=None)
    for data, suffix in ((photo(1), ".jpg"), (bytes(broken), ".jpg"), (photo(1, file_format="PNG"), ".png")):
        believed = judged(data, original, suffix, check="header")
        assert (believed.verdict, believed.stored, believed.perceptual_hash) == ("ok", data, None)
        assert believed.size == believed.source_size == Image.open(io.BytesIO(data)).size[::-1]
    assert judged(bytes(broken), original).verdict == "rejected"


def turned(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def xmp(number):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", f'<x tiff:Orientation="{number}"/>')
    return info


def half_transparent(image):
    image.putalpha(128)
    return image


@pytest.mark.parametrize(
    ("change", "verdict", "reason"),
    [
        (lambda image: save(image, "JPEG")[:-200], "rejected", "corrupt JPEG: Premature end of JPEG file"),
        (lambda image: save(image, "JPEG")[:-2], "repaired", "left out junk between the segments"),
        (lambda image: save(image, "PNG")[:-200], "rejected", "corrupt: image file is truncated"),
        (
            lambda image: save(image, "JPEG", exif=turned(6)),
            "repaired",
            "turned upright (EXIF orientation 6)",
        ),
        (lambda image: save(image, "JPEG", exif=turned(1)), "ok", ""),
        (lambda image: save(image, "PNG", exif=turned(3)), "repaired", "turned upright (EXIF orientation 3)"),
        (lambda image: save(image, "PNG", exif=turned(1)), "ok", ""),
        (lambda image: save(image, "PNG", pnginfo=xmp(8)), "repaired", "turned upright (EXIF orientation 8)"),
        (lambda image: save(image.convert("CMYK"), "JPEG"), "repaired", "CMYK to RGB"),
        (lambda image: save(image, "WEBP"), "repaired", "from WEBP"),
        (lambda image: save(image.convert("RGBA"), "PNG"), "ok", ""),
        (lambda image: save(half_transparent(image), "PNG"), "repaired", "transparency over white"),
        (
            lambda image: save(image.resize((1001, 1000)), "JPEG"),
            "rejected",
            "too large: more than 1,000,000 pixels",
        ),
        (lambda image: b"", "rejected", "empty file"),
        (lambda image: b"a text", "rejected", "not an image"),
        (lambda image: b"hi\n", "rejected", "not an image: text"),
    ],
)
def test_what_the_header_leaves_open_is_decoded(change, verdict, reason, photo):
    data = change(Image.open(io.BytesIO(photo(1))))
    suffix = ".png" if data.startswith(b"\x89PNG") else ".webp" if data.startswith(b"RIFF") else ".jpg"
    believed = judged(data, settings(size=None), suffix, check="header")
    assert believed.verdict == verdict
    assert believed.reason.startswith(reason)
    assert believed == judged(data, settings(size=None), suffix)._replace(
        perceptual_hash=believed.perceptual_hash
    )


def test_an_error_that_nobody_thought_of_costs_one_file(photo, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise IndexError("far out")

    monkeypatch.setattr("shardstream.ingest.images.jpeg.simplejpeg.decode_jpeg", fail)
    result = judged(photo(1), settings())
    assert (result.verdict, result.reason) == ("rejected", "unforeseen IndexError: far out")


def test_quality_decides_the_size(photo):
    sizes = [len(judged(photo(1), settings(quality=quality)).stored) for quality in (30, 60, 95)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]


def test_the_shape_is_stretched_cropped_or_padded():
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200  # The middle square.
    assert resize(wide, 12, "stretch")[:, :, 0].tolist() == [[0] * 4 + [200] * 4 + [0] * 4] * 12
    assert (resize(wide, 12, "crop") == 200).all()
    padded = resize(np.full((20, 60, 3), 200, np.uint8), 12, "pad")
    assert padded[:, 5, 0].tolist() == [0] * 4 + [200] * 4 + [0] * 4


@pytest.mark.parametrize("rule", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (7, 300), (64, 64)])
def test_every_shape_becomes_square(shape, rule):
    assert resize(np.full((*shape, 3), 7, np.uint8), 16, rule).shape == (16, 16, 3)


@pytest.mark.parametrize(("height", "width"), [(4, 300), (300, 4), (40, 100)])
def test_one_side_may_shrink_while_the_other_grows(height, width):
    # Stripes of one pixel: only a mean of many of them is gray.
    stripes = np.zeros((height, width, 3), np.uint8)
    if width > height:
        stripes[:, ::2] = 255
    else:
        stripes[::2] = 255
    assert np.abs(resize(stripes, 48, "stretch").astype(int) - 128).max() <= 64
    assert abs(resize(stripes, 48, "stretch").mean() - 127.5) < 3


def test_a_side_too_long_for_jpeg_is_refused():
    data = save(Image.new("P", (66_000, 2)), "PNG")  # A palette: cannot keep its bytes.
    result = judged(data, settings(size=None), ".png")
    assert (result.verdict, result.reason) == (
        "rejected",
        "too large: a JPEG has at most 65,500 pixels a side",
    )
    assert judged(data, settings(size=32), ".png").verdict == "repaired"


def test_heic_is_decoded_where_its_reader_is_installed():
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
    out = io.BytesIO()
    image = Image.fromarray(np.full((64, 48, 3), (200, 90, 30), np.uint8))
    pillow_heif.from_pillow(image).save(out, quality=90)
    made = judged(out.getvalue(), settings(size=32), ".HEIC")
    assert (made.verdict, made.reason, made.source_size) == ("repaired", "from HEIF", (64, 48))
    stored = np.asarray(Image.open(io.BytesIO(made.stored)))
    assert np.abs(stored.astype(int) - (200, 90, 30)).max() <= 6
