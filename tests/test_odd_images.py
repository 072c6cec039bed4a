"""Hundreds of odd and broken images from the test suites of image libraries, beside real photos."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from ingest.__main__ import main
from ingest.metadata import DatasetInfo
from ingest.records import decode_example, read_records

SHARED = Path(__file__).resolve().parents[2] / "shared/data"
ODD, ROOMS = SHARED / "odd", SHARED / "rooms3"

pytestmark = pytest.mark.skipif(not ODD.is_dir(), reason="the collection of odd images is not there")


@pytest.fixture(scope="module", params=[("128", "png"), ("original", "jpeg")], ids=" ".join)
def data(tmp_path_factory, request):
    root = tmp_path_factory.mktemp("odd")
    shutil.copytree(ODD, root / "photos/odd")
    for name in ("food", "interior", "exterior"):
        (root / "photos" / name).symlink_to(ROOMS / name)
    image_size, encoding = request.param
    options = ["--image-size", image_size, "--encoding", encoding, "--max-rejected", "1"]
    assert main(["build", str(root / "photos"), str(root / "d"), *options]) == 0
    return root / "d"


def rows(data):
    return {row["path"]: row for row in pq.read_table(data / "manifest.parquet").to_pylist()}


def test_every_file_has_a_verdict(data):
    found = rows(data)
    for path in ODD.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
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


def test_what_pillow_refuses_is_refused(data):
    found = rows(data)
    with (ODD / "INDEX.tsv").open() as table:
        broken = [
            line["path"] for line in csv.DictReader(table, delimiter="\t") if line["pil_status"] != "ok"
        ]
    accepted = {
        path for path in broken if f"odd/{path}" in found and found[f"odd/{path}"]["verdict"] != "rejected"
    }
    assert accepted == set()


# Pillow clips pixels of 16 bits at 255, and shows transparent ones of 16 bits in some colour.
PILLOW_ERRS = ("I;16", "I")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Of what is broken besides the pixels.
def test_accepted_pictures_look_as_they_do_in_pillow(data):
    if DatasetInfo.load(data).image.size is None:
        pytest.skip("compared at the stored size alone")
    differences = {}
    for path, image in stored(data).items():
        with Image.open(ODD / path) as source:
            if source.mode in PILLOW_ERRS:
                continue
            expected = shown_by_pillow(source, image.shape[0])
        differences[path] = np.abs(expected - image).mean()
    assert len(differences) > 350
    large = {path: round(float(difference), 1) for path, difference in differences.items() if difference > 6}
    # Much taller than wide or the other way round: one side grows while the other shrinks, and there OpenCV and
    # Pillow interpolate differently.
    assert len(large) <= 4, large
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


def shown_by_pillow(image, size):
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    shrinks = max(upright.size) > size
    small = upright.convert("RGB").resize(
        (size, size), Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    )
    return np.asarray(small).astype(float)
