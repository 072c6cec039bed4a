"""Two worker processes in a network that has the loopback device alone, killed and started again."""

import csv
import json
import os
import signal
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from scripts.faults import loopback
from shardstream.train.data.dataset import Dataset
from shardstream.train.distributed.strategy import set_seed
from shardstream.train.engine.loop import Loop
from shardstream.train.engine.trainer import Trainer
from shardstream.train.engine.training_data import make_training_data
from shardstream.train.models.phases import compile_phase
from shardstream.train.runs.run_folder import RunFolder

REASON = loopback.reason_it_cannot()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(REASON is not None, reason=f"two hosts are tried in a network of their own: {REASON}"),
]

# What has dropout draws other numbers on two devices than on one, so that there is a model without it as well.
MODEL = """
import keras

def build_model(name, *, image_size, num_classes, seed, synchronized=False, **_):
    return keras.Sequential([
        keras.Input((image_size, image_size, 3)),
        keras.layers.Rescaling(1 / 127.5, offset=-1),
        keras.layers.Conv2D(8, 5, strides=2, activation="relu"),
        keras.layers.BatchNormalization(momentum=0.5, synchronized=synchronized),
        keras.layers.GlobalAveragePooling2D(),
        *([keras.layers.Dropout(0.1, seed=seed)] if name == "small" else []),
        keras.layers.Dense(num_classes, activation="softmax", dtype="float32"),
    ])
"""
PROGRAM = (
    MODEL
    + """
import json, os, signal, sys
import shardstream.train.data.cache
import shardstream.train.resolve
from shardstream.train.__main__ import main

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

shardstream.train.resolve.build_model = build_model
argvs = json.loads(sys.argv[1])
if argvs[0][argvs[0].index("--rank") + 1] == "1":
    # It takes the disk, the chief its memory.
    shardstream.train.data.cache.free_bytes = lambda folder: {"memory": 1000, "disk": 10**9}
    if "--no-resume" in argvs[0]:
        shardstream.train.resolve.build_model = die
sys.exit(max(main(argv) for argv in argvs))
"""
)
EPOCHS, BATCH = 6, 16
HOSTS = "127.0.0.1:2222,127.0.0.1:2223"
OPTIONS = {
    "lost": "--model small --cache none --epochs 1 --no-resume",
    "killed": "--model small --cache memory --epochs 12 --save-every 5steps",
    "whole": "--model small --cache memory --epochs 12 --save-every 1h",
    "auto": "--model notebook --cache auto --epochs 1",
    "plain": f"--model notebook --cache none --epochs {EPOCHS} --save-every 1h --learning-rate 0.001",
}


def argv(data: Path, folder: Path, name: str, rank: int) -> list[str]:
    # The other worker has no run folder to look at.
    run = folder / (name if rank == 0 else "nowhere")
    cluster = ["--hosts", HOSTS, "--rank", str(rank), "--batch-size", str(BATCH), "--precision", "float32"]
    caches = ["--cache-dir", str(folder / "caches")]
    return [str(data), "--run", str(run), *caches, *cluster, *OPTIONS[name].split()]


class Hosts:
    """Runs of two workers on one dataset."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data = data
        self.folder = folder

    def start(self, *names: str):
        commands = [
            [
                sys.executable,
                "-c",
                PROGRAM,
                json.dumps([argv(self.data, self.folder, n, rank) for n in names]),
            ]
            for rank in (0, 1)
        ]
        return loopback.side_by_side(commands, self.folder / "logs")

    def stop(self, number: signal.Signals, rank: int, *, epoch: int) -> tuple[list[int], list[str]]:
        """Sends a signal to one worker soon after the run has saved a state of that epoch or a later one."""
        checkpoints = RunFolder(self.folder / "killed").checkpoints
        with self.start("killed") as group:
            while not any(path.stem >= f"{epoch:06d}" for path in checkpoints.glob("*.checkpoint")):
                assert group.is_running(), group.logs()
                time.sleep(0.003)
            os.kill(group.pids[rank], number)
            return group.wait(), group.logs()

    def finish(self, *names: str) -> list[str]:
        with self.start(*names) as group:
            codes = group.wait()
            assert codes == [0, 0], group.logs()
            return group.logs()


@pytest.fixture(scope="module")
def hosts(striped, tmp_path_factory):
    hosts = Hosts(striped.data_dir, tmp_path_factory.mktemp("hosts"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_DETERMINISTIC_OPS", "1")
        patch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
        hosts.stops = [  # pyright: ignore[reportAttributeAccessIssue]
            hosts.stop(signal.SIGKILL, 1, epoch=1),
            hosts.stop(signal.SIGTERM, 1, epoch=4),
        ]
        hosts.ends = hosts.finish("killed", "whole", "plain", "auto")  # pyright: ignore[reportAttributeAccessIssue]
    return hosts


def history(run: Path) -> list[dict[str, float]]:
    with RunFolder(run).history.open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    names = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
    return [{name: row[name] for name in names} for row in rows]


def weights(run: Path, name: str) -> list[np.ndarray]:
    return keras.saving.load_model(run / name).get_weights()


def test_the_others_leave_in_one_sentence_when_a_worker_is_killed(hosts):
    codes, logs = hosts.stops[0]
    assert codes == [1, -signal.SIGKILL]
    assert logs[0].splitlines()[-1] == (
        "shardstream-train: worker 0 (127.0.0.1:2222): worker 1 (127.0.0.1:2223) is gone or cannot be reached, and its "
        "output says why; run the same command again on all hosts, and the run goes on from its last state"
    )
    assert "Traceback" not in logs[0]


def test_they_do_when_it_was_killed_while_the_model_was_built(hosts):
    with hosts.start("lost") as group:
        assert group.wait() == [1, -signal.SIGKILL]
        log = group.logs()[0]
    assert "worker 0 (127.0.0.1:2222): worker 1 (127.0.0.1:2223) is gone or cannot be reached" in log
    assert "Traceback" not in log


def test_all_leave_at_the_same_step_when_one_is_asked_to(hosts):
    codes, logs = hosts.stops[1]
    assert codes == [143, 143]
    chief, other = (log.splitlines()[-1] for log in logs)
    assert other == chief.replace("; the same command goes on from there", ", with all other workers")
    assert chief.startswith("shardstream-train: stopped by SIGTERM at ")


def test_a_run_that_was_killed_ends_as_one_that_was_not(hosts):
    killed, whole = hosts.folder / "killed", hosts.folder / "whole"
    assert history(killed) == history(whole)
    assert len(history(whole)) == 12
    for file in ("best.keras", "last.keras"):
        for mine, theirs in zip(weights(killed, file), weights(whole, file), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_only_the_chief_writes_and_speaks(hosts):
    assert not (hosts.folder / "nowhere").exists()
    chief, other = hosts.ends
    assert "goes on from " in chief
    assert chief.count("best epoch") == 4
    assert not any(line.startswith(("epoch ", "best ", "goes on")) for line in other.splitlines())
    config = json.loads(RunFolder(hosts.folder / "whole").config.read_text())
    assert (config["num_workers"], config["num_replicas"]) == (2, 2)


def test_each_host_has_a_cache_of_its_own_part_and_the_batches_are_the_same(hosts):
    chief, _ = hosts.ends
    assert "cache of train: memory for" in chief
    assert len(list((hosts.folder / "caches").glob("*.images"))) == 2  # A part of each split, of one host.


def test_two_hosts_give_the_losses_of_one_device(hosts, striped):
    """Every epoch, the uneven evaluation, and the weights."""
    set_seed(123)
    scope: dict = {}
    exec(MODEL, scope)
    model = scope["build_model"]("seed", image_size=16, num_classes=3, seed=123)
    phases = [compile_phase(model, keras.optimizers.Adam(0.001))]
    rows = []
    recorder = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: rows.append(logs))
    loop = Loop(
        Trainer(model, tf.distribute.get_strategy(), phases=phases, label_smoothing=0.0),
        make_training_data(Dataset(striped), batch_size=BATCH, seed=123),
        epochs=EPOCHS,
        callbacks=[recorder],
    )
    loop.run()
    found = history(hosts.folder / "plain")
    # Sums of float32 come in another order. At ten times the learning rate Adam made 1e-4 of that, of gradients near 0.
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert [row[name] for row in found] == pytest.approx([row[name] for row in rows], rel=1e-5)
    for mine, theirs in zip(weights(hosts.folder / "plain", "last.keras"), model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4)
