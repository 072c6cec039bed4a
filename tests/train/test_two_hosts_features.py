"""Two worker processes that compute the features of a backbone together, against one process."""

import csv
import json
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from scripts.faults import loopback
from shardstream.train.config import TrainConfig
from shardstream.train.run import train_and_evaluate
from shardstream.train.runs.run_folder import RunFolder
from shardstream.train.runs.saved_model import ModelInfo, load_model

REASON = loopback.reason_it_cannot()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(REASON is not None, reason=f"two hosts are tried in a network of their own: {REASON}"),
]

# In its second batch worker 1 gets a signal, if one is given, or fails. The chief alone decides what else is trained.
PROGRAM = """
import json, os, sys
from shardstream.ingest.common.errors import DatasetError
from shardstream.train import feature_pass, pretrained_head
from shardstream.train.__main__ import main
from shardstream.train.engine import feature_blocks

FAILS = 1000
rank, number, log, argvs = json.loads(sys.argv[1])
feature_blocks.BLOCK_SIZE = 32
make_extractor = feature_pass.make_extractor

def make_counting(*args):
    extract, sizes = make_extractor(*args), []

    def counting(images):
        with open(log, "a") as file:
            print(len(images), file=file)
        sizes.append(len(images))
        if number and len(sizes) == 2:
            if number == FAILS:
                raise DatasetError("a record is corrupt")
            os.kill(os.getpid(), number)
        return extract(images)

    return counting

feature_pass.make_extractor = make_counting
pretrained_head.features_suffice = lambda *_, **__: False if rank == 0 else 1 / 0
codes = []
for argv in argvs:
    codes.append(main(argv))
    with open(log, "a") as file:
        print("end", file=file)
sys.exit(max(codes))
"""
FAILS = 1000
HOSTS = "127.0.0.1:2222,127.0.0.1:2223"
OPTIONS = {
    "head": "--model lite0",
    "failed": "--model lite0 --cache none",
    "fine-tuned": "--model lite0 --fine-tune last --epochs 1 --batch-size 64",
    "auto": "--epochs 1 --batch-size 64",
}


class Hosts:
    """Runs of two workers on one dataset, each with a cache of its own."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data = data
        self.folder = folder

    def run(self, *names: str, number: int = 0) -> tuple[list[int], list[str], list[list[list[int]]]]:
        """Returns the exit codes, the logs, and the sizes of the batches that each worker computed, by run."""
        commands = []
        for rank in (0, 1):
            argvs = [
                [
                    *(str(self.data), "--run", str(self.folder / (name if rank == 0 else "nowhere"))),
                    *("--cache-dir", str(self.folder / f"cache {rank}"), "--image-size", "48"),
                    *("--hosts", HOSTS, "--rank", str(rank), *OPTIONS[name].split()),
                ]
                for name in names
            ]
            given = json.dumps([rank, number if rank == 1 else 0, str(self.folder / f"{rank}.sizes"), argvs])
            commands.append([sys.executable, "-c", PROGRAM, given])
        with loopback.side_by_side(commands, self.folder / "logs") as group:
            return group.wait(), group.logs(), [self.sizes(rank) for rank in (0, 1)]

    def sizes(self, rank: int) -> list[list[int]]:
        path = self.folder / f"{rank}.sizes"
        runs = path.read_text().split("end")
        path.unlink()
        return [[int(size) for size in run.split()] for run in runs]


@pytest.fixture(scope="module")
def hosts(striped, tmp_path_factory):
    """192 images to train on are 6 blocks of 32, and 50 for validation are a block of 32 and one of 18."""
    hosts = Hosts(striped.data_dir, tmp_path_factory.mktemp("hosts"))
    hosts.stopped = hosts.run("head", number=signal.SIGTERM)  # pyright: ignore[reportAttributeAccessIssue]
    hosts.ended = hosts.run("head", "fine-tuned", "auto")  # pyright: ignore[reportAttributeAccessIssue]
    return hosts


@pytest.fixture(scope="module")
def alone(striped, tmp_path_factory):
    run = tmp_path_factory.mktemp("alone") / "run"
    train_and_evaluate(
        TrainConfig(data_dir=striped.data_dir, run=run, model="lite0", image_size=48, cache="none")
    )
    return run


def history(run: Path) -> list[dict[str, str]]:
    with RunFolder(run).history.open() as file:
        return list(csv.DictReader(file))


def test_both_stop_when_one_is_asked_to(hosts):
    codes, logs, _ = hosts.stopped
    assert codes == [143, 143], logs
    chief, other = (log.splitlines()[-1] for log in logs)
    # Before or after the chief got the first block of the other: it works ahead by a batch.
    assert re.fullmatch(
        r"shardstream-train: stopped by SIGTERM after the features of (32|96) images; those of \1 are kept, and the "
        "same command goes on with the others",
        chief,
    )
    assert re.fullmatch(
        "shardstream-train: stopped by SIGTERM after the features of (32|64) images; all other workers stop as well",
        other,
    )


def test_each_computes_every_second_block_once(hosts):
    """And the later runs none."""
    codes, logs, sizes = hosts.ended
    assert codes == [0, 0], logs
    kept = 32 if " 32 images" in hosts.stopped[1][0] else 64
    assert [sum(sizes[0][0]), sum(sizes[1][0])] == [4 * 32 - kept, 3 * 32 + 18 - kept]
    assert sizes[0][1:] == sizes[1][1:] == [[], [], []]


def test_where_one_fails_the_other_says_so(hosts):
    codes, logs, _ = hosts.run("failed", number=FAILS)
    assert codes == [1, 2], logs
    chief, other = (log.splitlines()[-1] for log in logs)
    assert "worker 1 (127.0.0.1:2223) is gone or cannot be reached" in chief
    assert other == "shardstream-train: a record is corrupt"
    assert not any("Traceback" in log for log in logs)


def test_the_head_is_that_of_one_process(hosts, alone):
    assert hosts.ended[0] == [0, 0], hosts.ended[1]
    mine, theirs = (load_model(run)[0].get_weights() for run in (hosts.folder / "head", alone))
    assert all((one == two).all() for one, two in zip(mine, theirs, strict=True))
    assert history(hosts.folder / "head")[0]["val_loss"] == history(alone)[0]["val_loss"]


def test_fine_tuning_goes_on_from_the_head_on_both(hosts, alone):
    rows = history(hosts.folder / "fine-tuned")
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert rows[0]["val_loss"] == history(alone)[0]["val_loss"]
    # From the weights of the head both begin with its loss; from others one would pull the mean up.
    assert float(rows[1]["loss"]) < np.log(3)


def test_whether_another_model_is_trained_is_decided_by_the_chief(hosts):
    config = json.loads(RunFolder(hosts.folder / "auto").config.read_text())
    assert (config["candidates"], config["num_workers"]) == (["lite0", "small"], 2)
    assert [row["epoch"] for row in history(hosts.folder / "auto")] == ["0", "1"]
    assert ModelInfo.load(hosts.folder / "auto").model in ("lite0", "small")
    assert not (hosts.folder / "nowhere").exists()
