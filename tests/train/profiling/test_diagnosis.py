import dataclasses
from pathlib import Path

import pytest

from shardstream.train.profiling.diagnosis import Advice, Measurements, Mode, Stage, StoredSmall, diagnose


def stage(name: str, ms: float) -> Stage:
    return Stage(name=name, images_per_sec=1000 / ms, core_ms=2 * ms)


def measured(**changes) -> Measurements:
    """Originals on a GPU that takes 1,000 img/s; the input gives 250, and 4,000 from memory."""
    found = Measurements(
        data_dir=Path("my data"),
        cache="none",
        input_stages=[
            stage("read", 0.5),
            stage("parse", 0.1),
            stage("decode", 1.2),
            stage("resize", 2.0),
            stage("batch", 0.2),
        ],
        device_stages=[stage("copy to the device", 0.1), stage("augment", 0.1), stage("step", 0.8)],
        modes=[
            Mode(cache="none", input_images_per_sec=250, images_per_sec=240, input_wait=0.76),
            Mode(cache="memory", input_images_per_sec=4000, images_per_sec=960, input_wait=0.04),
        ],
        stored_small=StoredSmall(image_size=128, bytes_share=0.1, decode_secs=0.00015),
        shares_cores=False,
        num_cores=2,
    )
    return dataclasses.replace(found, **changes)


UNFIT = Mode(cache="memory", unfit="the pictures take 50.00 GB, and 20.00 GB of memory are free")
SLOW = Mode(cache="none", input_images_per_sec=250, images_per_sec=240, input_wait=0.76)
BUILD_128 = "shardstream-ingest build IMAGES 'my data-128' --image-size 128"


def settings(found: Measurements) -> list[tuple[str, float]]:
    return [(advice.setting, pytest.approx(advice.gain)) for advice in diagnose(found).advice]


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        # Memory as measured: 960 / 240. Stored at 128 the stages take 0.05 + 0.1 + 0.15 + 0.2 of 4 ms, and the input
        # as much of its 4 ms, which hides behind the model's 1 ms: 4 / 1.
        ({}, [("--cache memory", 4.0), (BUILD_128, 4.0)]),
        # On shared cores nothing hides: (1 + 4) / (1 + 0.5).
        ({"shares_cores": True}, [("--cache memory", 4.0), (BUILD_128, 5 / 1.5)]),
        # What does not fit is no advice.
        ({"modes": [SLOW, UNFIT]}, [(BUILD_128, 4.0)]),
        # Stored at the size already.
        ({"stored_small": None}, [("--cache memory", 4.0)]),
        # The tier in use is the best there is, and then the size of what is stored is all the same.
        ({"cache": "memory"}, []),
        # A larger copy that takes longer to decode than the original with its resizing.
        (
            {
                "modes": [SLOW],
                "stored_small": StoredSmall(image_size=600, bytes_share=4.0, decode_secs=0.004),
            },
            [],
        ),
        # Under a tenth is not worth a word.
        (
            {
                "modes": [SLOW, dataclasses.replace(SLOW, cache="memory", images_per_sec=260)],
                "stored_small": None,
            },
            [],
        ),
    ],
)
def test_what_would_help_and_by_how_much(changes, advice):
    assert settings(measured(**changes)) == advice


def test_pictures_that_need_no_resizing_have_no_such_stage():
    stages = [stage("read", 0.5), stage("parse", 0.5), stage("decode", 2.5), stage("batch", 0.5)]
    found = measured(input_stages=stages, modes=[SLOW], shares_cores=True)
    # 0.05 + 0.5 + 0.15 + 0.5 of 4 ms, and 1 ms for the model.
    assert settings(found) == [(BUILD_128, 5 / 2.2)]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {},
            "the input is the limit: the input gives 250 img/s, most of it resize, and the model takes 1,000",
        ),
        (
            {"cache": "memory"},
            "the model's step is the limit: the input gives 4,000 img/s, and the model takes 1,000",
        ),
        ({"shares_cores": True}, "the input is the limit: it takes 80% of the core time, most of it resize"),
        (
            {"shares_cores": True, "cache": "memory"},
            "the model's step is the limit: it takes 80% of the core time, the input 20%",
        ),
    ],
)
def test_the_bottleneck_in_one_sentence(changes, sentence):
    assert diagnose(measured(**changes)).bottleneck == sentence


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, ""),
        (
            {"cache": "memory"},
            (
                "no input setting helps: with input that costs nothing the training would be 1.04 times as fast; "
                "another --model, a smaller --image-size or, on a GPU, mixed precision shortens the step"
            ),
        ),
        # 7.8 core ms of input for each millisecond of the model.
        (
            {"modes": [SLOW, UNFIT], "stored_small": None},
            (
                "with input that costs nothing the training would be 4.17 times as fast, for which the input needs "
                "about 8 cores and has 2"
            ),
        ),
        (
            {"modes": [SLOW, UNFIT], "stored_small": None, "shares_cores": True},
            (
                "with input that costs nothing the training would be 4.17 times as fast, but no setting that fits here "
                "saves enough; a smaller --image-size or more cores would"
            ),
        ),
    ],
)
def test_what_is_left_where_no_setting_helps(changes, sentence):
    assert diagnose(measured(**changes)).otherwise == sentence


def test_the_reasons_have_the_figures():
    memory, small = diagnose(measured()).advice
    assert memory == Advice(
        setting="--cache memory",
        gain=4.0,
        why="960 img/s in the place of 240, as measured; the training would wait 4 % of its time for input in the "
        "place of 76 %",
    )
    assert small.why == (
        "stored at 128x128 a picture has 10% of its bytes and takes 0.15 ms to decode, in the place of 3.20 ms to "
        "decode and resize"
    )


def test_shares_make_a_whole():
    found = measured()
    shares = [found.share(stage) for stage in found.stages]
    assert sum(shares) == pytest.approx(1)
    assert shares[3] == pytest.approx(0.4)


@pytest.mark.parametrize(("whole", "part", "rest"), [(5.0, 2.0, 3.0), (5.0, 4.99, 0.05), (5.0, 6.0, 0.05)])
def test_the_rest_of_a_stage_is_never_nothing(whole, part, rest):
    left = stage("both", whole).without(stage("part", part), name="rest")
    assert (left.name, left.secs, left.core_ms) == (
        "rest",
        pytest.approx(rest / 1000),
        pytest.approx(2 * rest),
    )
