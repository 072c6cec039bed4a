"""Hundreds of odd and broken images from the test suites of image libraries, beside real photos."""

import contextlib
import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageCms, ImageOps

from shardstream.ingest.__main__ import main
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.records import decode_example, read_records

SHARED = Path(__file__).resolve().parents[2] / "shared/data"
ODD, ROOMS = SHARED / "odd", SHARED / "rooms3"

NO_IMAGES = {".tsv", ".mp3"}

pytestmark = pytest.mark.skipif(not ODD.is_dir(), reason="the collection of odd images is not there")


@pytest.fixture(scope="module", params=[("128", "png"), ("original", "jpeg")], ids=" ".join)
def data(tmp_path_factory, request):
    root = tmp_path_factory.mktemp("odd")
    shutil.copytree(ODD, root / "photos/odd")
    for name in ("food", "interior", "exterior"):
        (root / "photos" / name).symlink_to(ROOMS / name)
    image_size, encoding = request.param
    options = ["--image-size", image_size, "--encoding", encoding, "--max-rejected", "1", "--follow-links"]
    assert main(["build", str(root / "photos"), str(root / "d"), *options]) == 0
    return root / "d"


def rows(data):
    return {row["path"]: row for row in pq.read_table(data / "manifest.parquet").to_pylist()}


def test_every_file_has_a_verdict(data):
    found = rows(data)
    for path in ODD.rglob("*"):
        if path.is_file() and not path.name.startswith(".") and path.suffix not in NO_IMAGES:
            row = found[f"odd/{path.relative_to(ODD).as_posix()}"]
            assert row["verdict"] in {"ok", "repaired", "duplicate", "rejected"}
            assert row["reason"] or row["verdict"] == "ok"


def test_every_accepted_record_decodes_in_tensorflow(data):
    import tensorflow as tf

    info = DatasetInfo.load(data)
    num_records = 0
    for split in info.splits.values():
        for shard in split.shards:
            for serialized in tf.data.TFRecordDataset(str(data / shard.filename)):
                example = tf.train.Example.FromString(serialized.numpy()).features.feature
                image = tf.io.decode_image(example["image"].bytes_list.value[0], channels=3)
                size = [example[f"image/{side}"].int64_list.value[0] for side in ("height", "width")]
                assert image.shape.as_list() == [*size, 3]
                num_records += 1
    assert num_records == info.verdicts["ok"] + info.verdicts["repaired"] > 1000


# What becomes of the files of each kind that Pillow shows. Those it does not show are all rejected.
OK, REPAIRED = {"ok"}, {"repaired"}
VERDICTS = {
    "apng": REPAIRED,
    "avif": REPAIRED,
    "bmp": REPAIRED,
    "gif-animated": REPAIRED,
    "gif-static": REPAIRED,
    "ico": REPAIRED,
    "jpeg-baseline": OK | REPAIRED,  # Some with junk between their segments, or another format's name.
    "jpeg-cmyk": REPAIRED,
    "jpeg-exif-rotated": REPAIRED,
    "jpeg-gray": OK,
    "jpeg-mpo": OK,
    "jpeg-progressive": OK,
    "jpeg-rgb": OK,
    "jpeg-ycck": REPAIRED,
    "jpeg2000": REPAIRED,
    "large-tiff": REPAIRED,
    "other-format": REPAIRED,
    "png-gray": OK,
    "png-gray-16bit": REPAIRED,
    "png-gray-interlaced": OK,
    "png-gray-trns": REPAIRED,
    "png-gray-trns-16bit": REPAIRED,
    "png-grayalpha": REPAIRED,
    "png-grayalpha-16bit": REPAIRED,
    "png-grayalpha-16bit-interlaced": REPAIRED,
    "png-grayalpha-interlaced": REPAIRED,
    "png-palette": REPAIRED,
    "png-palette-alpha": REPAIRED,
    "png-palette-alpha-interlaced": REPAIRED,
    "png-palette-interlaced": REPAIRED,
    "png-rgb": OK,
    "png-rgb-16bit": OK,
    "png-rgb-16bit-interlaced": OK,
    "png-rgb-interlaced": OK,
    "png-rgb-trns": REPAIRED,
    "png-rgb-trns-16bit": REPAIRED,
    "png-rgba": REPAIRED,
    "png-rgba-16bit": REPAIRED,
    "png-rgba-16bit-interlaced": REPAIRED,
    "png-rgba-interlaced": REPAIRED,
    "tiff": REPAIRED,
    "tiff-multipage": REPAIRED,
    "webp": REPAIRED,
    "webp-alpha": REPAIRED,
    "webp-animated": REPAIRED,
    "wrong-extension": REPAIRED,
}


# Black and white pixels in turn, which JPEG makes gray at any quality.
DITHERED = {"drewnoakes+metadata-extractor-images/tif/ImageTestSuite/034ed0549f9046b9c370ac26550a60da.tif"}


def index():
    with (ODD / "INDEX.tsv").open() as table:
        return list(csv.DictReader(table, delimiter="\t"))


def is_rightly_rejected(line, reason):
    """Whether a file is rejected that Pillow shows, and Pillow errs."""
    if line["kind"].startswith(
        "jpeg"
    ):  # Pillow goes on where libjpeg warns that data are missing or superfluous.
        return reason.startswith(
            ("corrupt JPEG: Corrupt", "corrupt JPEG: Premature", "corrupt JPEG: Inconsistent")
        )
    if "png" in line["kind"]:  # Pillow shows what came before the damage; TensorFlow refuses it as well.
        return reason.startswith("corrupt") and line["tf_decode_image"].startswith("ERR")
    if line["path"].endswith("rgb32bf-abgr.bmp"):  # Its alpha channel hides everything.
        return reason.startswith("transparent everywhere")
    return reason == "too large: a JPEG has at most 65,500 pixels a side"  # Seen, and cannot be stored.


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_each_kind_has_its_verdict(data):
    found = rows(data)
    wrong = []
    for line in index():
        row = found.get(f"odd/{line['path']}")
        if row is None or row["verdict"] == "duplicate":
            continue
        if line["pil_status"] != "ok":
            expected = row["verdict"] == "rejected"
        elif row["verdict"] == "rejected":
            expected = is_rightly_rejected(line, row["reason"])
        else:
            expected = row["verdict"] in verdicts_of(line)
        if not expected:
            wrong.append((line["kind"], line["path"], row["verdict"], row["reason"]))
    assert wrong == []


def verdicts_of(line):
    with Image.open(ODD / line["path"]) as image:
        image.load()
        if line["kind"].startswith(("png-rgba", "apng")) and shows_all(image):
            return OK  # An alpha channel that hides nothing.
        return VERDICTS[line["kind"]] | (REPAIRED if image.info.get("icc_profile") else set())


def shows_all(image):
    return image.mode == "RGBA" and getattr(image, "n_frames", 1) == 1 and image.getextrema()[3][0] == 255


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Of what is broken besides the pixels.
def test_accepted_pictures_look_as_they_do_in_pillow(data):
    differences = {}
    for path, image in stored(data).items():
        with Image.open(ODD / path) as source:
            expected = shown_by_pillow(source, image.shape[1::-1])
        differences[path] = np.abs(expected - image).mean()
    assert len(differences) > 400
    assert {path: found for path, found in differences.items() if found > 6 and path not in DITHERED} == {}
    assert np.mean(list(differences.values())) < 1


def stored(data):
    images = {}
    for split in DatasetInfo.load(data).splits.values():
        for shard in split.shards:
            with (data / shard.filename).open("rb") as file:
                for record in read_records(file):
                    features = decode_example(record.payload)
                    path = features["image/filename"].decode()
                    if path.startswith("odd/"):
                        images[path.removeprefix("odd/")] = pixels(features["image"])
    return images


def pixels(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).astype(float)


def in_srgb(image, profile):
    if not profile or profile[16:20] != b"RGB ":
        return image
    with contextlib.suppress(ImageCms.PyCMSError):
        image = ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        )
    return image


def shown_by_pillow(image, size):
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):  # Pillow's conversion of 16 bits to 8 cuts them off at 255.
        deep = np.asarray(upright)
        depth = next(depth for depth in (8, 10, 12, 14, 16) if deep.max() < 1 << depth)
        gray = np.where(deep == upright.info.get("transparency"), 255, deep >> (depth - 8))
        upright = Image.fromarray(gray.astype(np.uint8))
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    upright = in_srgb(upright.convert("RGB"), image.info.get("icc_profile"))
    shrunk = (min(upright.width, size[0]), min(upright.height, size[1]))
    upright = upright.resize(shrunk, Image.Resampling.BOX).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(upright).astype(float)
