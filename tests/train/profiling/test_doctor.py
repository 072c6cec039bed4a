import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from shardstream.ingest.images.settings import ImageSettings
from shardstream.train.__main__ import main
from shardstream.train.config import DoctorConfig
from shardstream.train.data.cache_folder import CacheFolder
from shardstream.train.profiling import doctor
from shardstream.train.profiling.doctor import measure
from shardstream.train.profiling.sample import Sample
from shardstream.train.profiling.stopwatch import Stopwatch
from shardstream.train.resolve import prepare

INPUT = ["read", "parse", "decode", "batch"]


@pytest.fixture(scope="module")
def originals(make_dataset):
    """JPEGs, each of another size."""
    image = ImageSettings(size=None, resize="crop", encoding="jpeg", quality=95)

    def picture(number: int, label: int) -> np.ndarray:
        return np.random.default_rng(number).integers(0, 255, (40 + number % 5, 60, 3), np.uint8)

    return make_dataset(image=image, picture=picture)


def run_json(capsys, *arguments: object) -> dict:
    assert main(["doctor", *map(str, arguments), "--seconds", "0.02", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_each_part_and_the_whole_with_each_tier(originals, capsys):
    found = run_json(
        capsys, originals.data_dir, "--image-size", "24", "--batch-size", "16", "--cache", "none"
    )
    names = [stage["name"] for stage in found["input_stages"]]
    # A JPEG that is shrunk while it is decoded leaves nothing to resize.
    assert [name for name in names if name != "resize"] == INPUT
    assert [stage["name"] for stage in found["device_stages"]] == ["augment", "step"]
    stages = found["input_stages"] + found["device_stages"]
    assert min(stage["images_per_sec"] for stage in stages) > 0
    assert min(stage["core_ms"] for stage in stages) > 0
    assert sum(stage["share"] for stage in stages) == pytest.approx(1)
    assert found["cache"] == "none"
    assert [mode["cache"] for mode in found["modes"]] == ["none", "memory", "disk", "device"]
    for mode in found["modes"]:
        assert mode["unfit"] == ""
        assert mode["input_images_per_sec"] > 0
        assert mode["images_per_sec"] > 0
        assert 0 <= mode["input_wait"] <= 1
    small = found["stored_small"]
    assert small["image_size"] == 24
    assert 0 < small["bytes_share"] < 1  # 24x24 of noise in the place of 40x60.
    assert found["shares_cores"] is True
    assert "is the limit: " in found["bottleneck"]
    assert bool(found["advice"]) != bool(found["otherwise"])


def test_batches_are_measured_as_training_makes_them(striped, monkeypatch):
    """By threads, each of whose pictures has its place in the batch, and not with tf.data."""

    def refused(*_: object) -> None:
        raise AssertionError("no training does this")

    monkeypatch.setattr(tf.data.Dataset, "from_tensor_slices", refused)
    stage = Sample(striped, image_size=striped.image.size or 0).measure_batching(Stopwatch(0.02), 16)
    assert stage.name == "batch"
    assert stage.images_per_sec > 0


def test_the_table_names_all_parts_and_the_tier_that_is_chosen(striped, capsys):
    assert main(["doctor", str(striped.data_dir), "--seconds", "0.02", "--model", "notebook"]) == 0
    shown = capsys.readouterr().out
    for text in (*INPUT, "step", "--cache none", "is the limit: "):
        assert text in shown
    assert "resize" not in shown  # Stored at the size that the model sees.
    assert "(as chosen)" in " ".join(shown.split())


def test_a_tier_that_does_not_fit_is_not_tried(striped, monkeypatch):
    monkeypatch.setattr(doctor, "free_memory_bytes", lambda: 1000)
    found = measure(DoctorConfig(data_dir=striped.data_dir, cache="none", seconds=0.02, model="notebook"))
    (memory,) = (mode for mode in found.modes if mode.cache == "memory")
    assert memory.images_per_sec is None
    assert memory.unfit == "the pictures take 0.00 GB, and 0.00 GB of memory are free"


def test_a_disk_that_is_full_is_not_tried(striped, monkeypatch):
    monkeypatch.setattr(CacheFolder, "free_bytes", lambda self: 1000)
    setup = prepare(DoctorConfig(data_dir=striped.data_dir, cache="none").train_config())
    assert doctor._unfit(setup, "disk") == "the pictures take 0.00 GB, and 0.00 GB of disk are free"
    assert [doctor._unfit(setup, tier) for tier in ("none", "memory")] == ["", ""]


def test_the_tier_that_was_asked_for_is_measured_whatever_is_free(striped, monkeypatch):
    monkeypatch.setattr(doctor, "free_memory_bytes", lambda: 1000)
    found = measure(DoctorConfig(data_dir=striped.data_dir, cache="memory", seconds=0.02, model="notebook"))
    assert found.mode("memory").images_per_sec is not None


def test_a_tier_is_measured_on_as_few_shards_as_do(striped, monkeypatch):
    monkeypatch.setattr(doctor, "_CACHED_EXAMPLES", 65)
    some = doctor._some_shards(striped, batch_size=1).split("train")
    assert [shard.filename for shard in some.shards] == [
        shard.filename for shard in striped.split("train").shards[:2]
    ]
    assert doctor._some_shards(striped, batch_size=150).split("train") == striped.split("train")
    assert dataclasses.asdict(striped)["splits"]["train"]["shards"]  # The dataset itself is as it was.


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "nowhere: no such folder; make it with `shardstream-ingest build IMAGES nowhere`"),
        (["nowhere", "--seconds", "0"], "seconds must be positive, got 0.0"),
        (["nowhere", "--batch-size", "0"], "batch_size must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_one_sentence(arguments, sentence, capsys):
    assert main(["doctor", *arguments]) == 2
    assert capsys.readouterr().err == f"shardstream-train: {sentence}\n"
