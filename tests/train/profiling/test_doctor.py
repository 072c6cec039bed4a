import json

import pytest

from shardstream.train.__main__ import main
from shardstream.train.config import DoctorConfig
from shardstream.train.profiling import doctor
from shardstream.train.profiling.doctor import TierRates, advise

TF_CONFIG = '{"cluster": {"worker": ["a.invalid:1", "b.invalid:1"]}, "task": {"type": "worker", "index": 0}}'


def rates(cache, alone, both, wait) -> TierRates:
    return TierRates(cache=cache, input_images_per_sec=alone, images_per_sec=both, input_wait=wait)


@pytest.mark.parametrize(
    ("tiers", "advice"),
    [
        # Half of the time is waited: memory makes it twice as fast, and it is measured.
        (
            [rates("none", 500, 500, 0.5), rates("memory", 9000, 980, 0.0), rates("disk", 8000, 900, 0.1)],
            (
                "--cache memory makes this training about 96% faster: 980 img/s instead of 500, 0% of the time waiting "
                "for input instead of 50%"
            ),
        ),
        # What is not waited cannot be saved, whatever the other rate was.
        (
            [rates("none", 2000, 800, 0.2), rates("memory", 9000, 1600, 0.0)],
            (
                "--cache memory makes this training about 25% faster: 1,600 img/s instead of 800, 0% of the time "
                "waiting for input instead of 20%"
            ),
        ),
        ([rates("none", 2000, 800, 0.03), rates("memory", 9000, 1600, 0.0)], ""),
        # Less than two measurements differ by.
        ([rates("none", 2000, 950, 0.2), rates("memory", 9000, 1000, 0.0)], ""),
        ([rates("none", 990, 940, 0.15)], ""),
        (
            [rates("none", 500, 490, 0.5)],
            (
                "the input limits this training: it gives 500 img/s, and the step takes 1,000; no cache that was "
                "measured helps; more CPU cores, or images stored at 64x64 (shardstream-ingest build --image-size) "
                "would, by 100% at most"
            ),
        ),
    ],
)
def test_advice_follows_from_the_rates(tiers, advice):
    assert advise("none", 1000, tuple(tiers), smaller_size=64) == advice


def test_images_stored_at_the_size_of_the_model_are_not_made_smaller():
    advice = advise("none", 1000, (rates("none", 500, 490, 0.5),), smaller_size=None)
    assert advice.endswith("; more CPU cores would, by 100% at most")


def test_each_tier_is_measured_on_this_host_alone_and_nothing_is_left(striped, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TF_CONFIG", TF_CONFIG)
    cache_dir = tmp_path / "caches" / "mine"
    options = ["--seconds", "0.05", "--cache", "none", "--cache-dir", str(cache_dir), "--json"]
    assert main(["doctor", str(striped.data_dir), "--batch-size", "16", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cache"] == "none"
    assert found["step_images_per_sec"] > 0
    assert [tier["cache"] for tier in found["tiers"]] == ["none", "memory", "disk"]
    assert found["unfit"] == {}
    for tier in found["tiers"]:
        assert tier["input_images_per_sec"] > 0
        assert tier["images_per_sec"] > 0
        assert 0 <= tier["input_wait"] <= 1
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_is_a_row_that_says_so_unless_it_was_asked_for(striped, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "free_bytes", lambda folder: {"memory": 1000, "disk": 1000})
    config = {"data_dir": striped.data_dir, "seconds": 0.05, "batch_size": 16, "cache_dir": tmp_path}
    found = doctor.diagnose(DoctorConfig(cache="memory", **config))
    assert [tier.cache for tier in found.tiers] == ["none", "memory"]
    assert found.unfit == {"disk": "the decoded images take 186 kB, 1 kB are free"}
    none, memory, disk = doctor.table_lines(found)[1:]
    assert none.startswith("--cache none ")
    assert memory.startswith("--cache memory (in use) ")
    assert disk.split(None, 2)[2] == found.unfit["disk"]


def test_a_disk_that_cannot_be_written(striped, tmp_path, capsys):
    """A row where another cache is in use, else an error."""
    (tmp_path / "file").touch()
    options = {
        "data_dir": striped.data_dir,
        "seconds": 0.05,
        "batch_size": 16,
        "cache_dir": tmp_path / "file",
    }
    found = doctor.diagnose(DoctorConfig(cache="none", **options))
    assert list(found.unfit) == ["disk"]
    assert found.unfit["disk"].endswith(": Not a directory")
    arguments = ["--seconds", "0.05", "--cache", "disk", "--cache-dir", str(tmp_path / "file")]
    assert main(["doctor", str(striped.data_dir), *arguments]) != 0
    assert "Not a directory" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "nowhere: no such folder; make it with `shardstream-ingest build IMAGES nowhere`"),
        (["nowhere", "--seconds", "0"], "seconds must be positive, got 0.0"),
        (["nowhere", "--batch-size", "0"], "batch_size must be at least 1, got 0"),
    ],
)
def test_invalid_options_are_one_sentence(arguments, sentence, capsys):
    assert main(["doctor", *arguments]) == 2
    assert capsys.readouterr().err == f"shardstream-train: {sentence}\n"
