import io
import random
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image

from shardstream.ingest.images import jpeg
from shardstream.ingest.images.decode import check_whole, decode, read_source
from shardstream.ingest.images.image_errors import ImageError
from shardstream.ingest.images.jpeg import JpegError, UnusualJpegError

# Of 16x16 pixels, made by cjpeg and libjpeg-turbo 3: kinds that Pillow does not write.
SELDOM = {
    "4:4:1": b64decode(
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcpLDAx"
        "NDQ0Hyc5PTgyPC4zNDL/2wBDAQkJCQwLDBgNDRgyIRwhMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIy"
        "MjIyMjIyMjL/wAARCAAQABADARQAAhEBAxEB/8QAFgABAQEAAAAAAAAAAAAAAAAAAAYH/8QAGBAAAgMAAAAAAAAAAAAAAAAAAAQF"
        "IjH/xAAVAQEBAAAAAAAAAAAAAAAAAAAGA//EABgRAAIDAAAAAAAAAAAAAAAAAAQFACEi/9oADAMBAAIRAxEAPwCHThcqaInC5UAs"
        "c+OvUHrWhNak0nC5U0ROFyoAPOfHXqPlrQmtT//Z"
    ),
    "3x1": b64decode(
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcpLDAx"
        "NDQ0Hyc5PTgyPC4zNDL/2wBDAQkJCQwLDBgNDRgyIRwhMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIy"
        "MjIyMjIyMjL/wAARCAAQABADATEAAhEBAxEB/8QAFgAAAwAAAAAAAAAAAAAAAAAAAAUG/8QAGBAAAgMAAAAAAAAAAAAAAAAAAAQF"
        "IjH/xAAWAQEBAQAAAAAAAAAAAAAAAAAGBQf/xAAaEQACAgMAAAAAAAAAAAAAAAAABQQGIyQx/9oADAMBAAIRAxEAPwCHThcqP04X"
        "KgWXrPN0UVmZrlKnC5UfpwuVAz16zzdCdZma5//Z"
    ),
    "arithmetic": b64decode(
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcpLDAx"
        "NDQ0Hyc5PTgyPC4zNDL/2wBDAQkJCQwLDBgNDRgyIRwhMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIy"
        "MjIyMjIyMjL/yQARCAAQABADASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD/AKGpNWAPRPnope/WSjUHfDxJwgaY"
        "n8pdlS6AszUQ/9k="
    ),
    "lossless": b64decode(
        "/9j/7gAOQWRvYmUAZAAAAAAA/8MAEQgAEAAQA1IRAEcRAEIRAP/EABcAAQEBAQAAAAAAAAAAAAAAAAAHCAX/2gAMA1IARwBCAAEA"
        "AKRw5iAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAMltLAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAD//Z"
    ),
}

KINDS: dict[str, dict[str, object]] = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True},
    "progressive 4:4:4": {"progressive": True, "subsampling": 0},
    "restart marks": {"restart_marker_blocks": 2},
    "own tables": {"optimize": True},
}


@pytest.fixture(scope="module")
def noisy():
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((90, 70))
    return Image.fromarray((np.asarray(smooth) * 0.8 + rng.integers(0, 50, (70, 90, 3))).astype(np.uint8))


def save(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **{"quality": 85} | options)
    return out.getvalue()


def corrupt(data: bytes, draw: random.Random) -> bytes:
    broken = bytearray(data)
    place = draw.randrange(data.index(b"\xff\xda"), len(data))
    match draw.randrange(6):
        case 0 | 1:
            broken[place] ^= 1 << draw.randrange(8)
        case 2:
            del broken[place:]
        case 3:
            broken[place : place + 20] = bytes(20)
        case 4:
            broken[place:place] = broken[place - 40 : place]
        case 5:
            broken[place : place + 2] = b"\xff" + draw.choice([b"\xd0", b"\xd9", b"\xda", b"\xc4"])
    return bytes(broken)


def refuses(work) -> bool:
    try:
        work()
    except JpegError:
        return True
    return False


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_small_gray_check_refuses_what_a_full_decode_refuses(kind, mode, noisy):
    whole = save(noisy.convert(mode), **KINDS[kind])
    header = jpeg.read_header(whole)
    draw = random.Random(kind)
    verdicts = []
    for _ in range(400):
        data = corrupt(whole, draw)
        refused = refuses(lambda data=data: jpeg.decode(data, header))
        assert refuses(lambda data=data: jpeg.check(data, header)) == refused
        verdicts.append(refused)
    assert {True, False} == set(verdicts)  # Or the comparison would say nothing.


@pytest.mark.parametrize(
    ("height", "width", "cell"), [(70, 90, 2), (300, 260, 8), (255, 600, 4), (20, 500, 1)]
)
def test_the_check_gives_the_means_of_cells(height, width, cell, noisy):
    image = noisy.resize((width, height))
    data = save(image, quality=100)
    gray, found = jpeg.check(data, jpeg.read_header(data))
    assert found == cell
    assert gray.shape == (-(-height // cell), -(-width // cell))
    means = np.asarray(image.convert("L").reduce(cell)).astype(int)
    rows, columns = height // cell, width // cell  # The cells at the edge are not whole.
    assert np.abs(gray.astype(int) - means)[:rows, :columns].mean() < 1.5


@pytest.mark.parametrize(
    ("mode", "options", "num_components", "samples"),
    [
        ("RGB", {"subsampling": 0}, 3, 0),
        ("RGB", {"subsampling": 0, "progressive": True}, 3, 3),
        ("RGB", {"subsampling": 2, "progressive": True}, 3, 1.5),
        ("CMYK", {"subsampling": 0, "progressive": True}, 4, 4),
        ("L", {"progressive": True}, 1, 1),
    ],
)
def test_the_header_tells_what_a_decoder_has_to_keep(mode, options, num_components, samples, noisy):
    header = jpeg.read_header(save(noisy.convert(mode), **options))
    assert (header.height, header.width, header.num_components, header.depth) == (70, 90, num_components, 8)
    assert header.buffer_bytes == 2 * samples * 70 * 90
    assert header.is_tidy


def test_a_header_with_anything_that_may_need_mending_is_not_tidy(noisy):
    data = save(noisy)
    tables = data.index(b"\xff\xdb")
    assert jpeg.read_header(data + b"what follows does not matter").is_tidy
    for untidy in (
        data[:-2],
        data[: len(data) // 2],
        data[:tables] + b"\0\1\2" + data[tables:],
    ):
        assert not jpeg.read_header(untidy).is_tidy


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\xda\0\4\0\0\xff\xd9",
        b"\xff\xd8\xff\xc0\0\4\0\0\xff\xda\0\4\0\0\xff\xd9",
    ],
)
def test_what_has_no_header_is_refused(data):
    with pytest.raises(JpegError, match="not even its header can be read"):
        jpeg.read_header(data)


def test_a_side_of_no_pixels_is_refused(noisy):
    data = bytearray(save(noisy))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 7] = b"\0\0"
    with pytest.raises(JpegError, match="a side of 0 pixels"):
        jpeg.read_header(bytes(data))


@pytest.mark.parametrize("kind", ["4:4:1", "arithmetic", "lossless"])
def test_kinds_that_are_seldom_seen_are_decoded_like_any(kind):
    header = jpeg.read_header(SELDOM[kind])
    with Image.open(io.BytesIO(SELDOM[kind])) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(jpeg.decode(SELDOM[kind], header), expected)
    small = jpeg.decode(SELDOM[kind], header, min_size=4)  # libjpeg cannot shrink lossless ones.
    assert small.shape == ((16, 16, 3) if kind == "lossless" else (4, 4, 3))
    assert np.abs(small.mean((0, 1)) - expected.mean((0, 1))).max() < 3
    assert header.is_everyday == (kind == "4:4:1")
    assert header.oddity == {"arithmetic": "arithmetic coding", "lossless": "lossless coding"}.get(kind, "")


def test_a_sampling_that_the_decoder_does_not_know_is_left_to_pillow():
    data = SELDOM["3x1"]
    for work in (jpeg.check, jpeg.decode):
        with pytest.raises(UnusualJpegError):
            work(data, jpeg.read_header(data))
    source = read_source(data, ".jpg", 1000)
    assert check_whole(source) is None
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decode(source).rgb, np.asarray(image))
    # Pillow minds little, so at least the frame around the scans has to be whole.
    for broken in (data[:-2], data[:20] + b"junk" + data[20:]):
        with pytest.raises(ImageError, match="corrupt JPEG: junk between its segments, or no end"):
            decode(read_source(broken, ".jpg", 1000))


def test_damage_is_noticed_whatever_the_sampling():
    data = SELDOM["3x1"]
    scan = data.rindex(b"\xff\xda") + 14
    for broken in (
        data[: len(data) - 12] + data[-2:],  # Cut, with an end mark again.
        data[:scan] + bytes(20) + data[scan + 20 :],
        data[:-2] + b"\x55" * 30 + data[-2:],
    ):
        with Image.open(io.BytesIO(broken)) as image:
            image.load()  # Pillow shows it all the same.
        with pytest.raises(ImageError, match="corrupt JPEG: Corrupt JPEG data: "):
            decode(read_source(broken, ".jpg", 1000))


@pytest.mark.parametrize(("mode", "transform"), [("RGB", 2), ("RGB", 9), ("CMYK", 1)])
def test_a_color_transform_that_does_not_exist_is_taken_for_the_usual_one(mode, transform, noisy):
    adobe = b"\xff\xee\x00\x0eAdobe\x00d\x00\x00\x00\x00"
    data = bytearray(save(noisy.convert(mode)))
    if mode == "RGB":
        data[2:2] = adobe + bytes([1])
        data = data.replace(b"JFIF", b"none")  # Beside it Adobe's does not count.
    place = data.index(b"Adobe") + 11
    data[place] = transform
    seen = decode(read_source(bytes(data), ".jpg", 10**5))
    assert seen.repairs[0] == "unknown color transform read as the usual one"
    data[place] = 1 if mode == "RGB" else 2
    assert np.array_equal(seen.rgb, decode(read_source(bytes(data), ".jpg", 10**5)).rgb)


def test_what_a_decoder_minds_though_the_picture_is_whole_is_mended_one_after_the_other(noisy):
    data = save(noisy)
    version = data.index(b"JFIF") + 5
    odd = data[:version] + b"\3\7" + data[version + 2 : -2]  # And no end.
    seen = decode(read_source(odd, ".jpg", 10**5))
    assert seen.repairs == ("unknown version of JFIF read as 1.2", "left out junk between the segments")
    assert np.array_equal(seen.rgb, decode(read_source(data, ".jpg", 10**5)).rgb)
    with pytest.raises(ImageError, match="corrupt JPEG: Warning: unknown JFIF revision number 3"):
        decode(read_source(odd[: len(odd) // 2] + data[-2:], ".jpg", 10**5))


@pytest.mark.parametrize("kind", ["arithmetic", "lossless"])
def test_a_coding_that_browsers_do_not_know_is_not_kept(kind):
    source = read_source(SELDOM[kind], ".jpg", 1000)
    assert source.clean_size is None
    assert decode(source).repairs == (f"{kind} coding to everyday JPEG",)


@pytest.mark.parametrize(
    ("place", "byte", "missing"),
    [(4, 12, "a JPEG of 12 bits"), (1, 0xF7, "JPEG-LS"), (1, 0xC5, "a JPEG of process 5"), (1, 0xC2, "")],
)
def test_kinds_that_cannot_be_decoded_are_known_by_their_header(place, byte, missing, noisy):
    data = bytearray(save(noisy))
    data[data.index(b"\xff\xc0") + place] = byte
    assert jpeg.read_header(bytes(data)).missing_decoder == missing
