"""mixed_float16 where the gradients of one device overflow: every device leaves the step out, and all go on alike."""

import json
import subprocess
import sys

import pytest

from scripts.faults import loopback

REASON = loopback.reason_it_cannot()

# Gradients of a white picture, which is eight times 255 here, overflow as float16 at this loss scale; those of a black
# one are 0.
PROGRAM = """
import json, signal, sys

import keras
import numpy as np
import tensorflow as tf

from shardstream.train.distributed.strategy import precision_scope, set_seed
from shardstream.train.distributed.workers import join_workers
from shardstream.train.engine.trainer import Trainer
from shardstream.train.models.phases import compile_phase

hosts, rank = json.loads(sys.argv[1])
signal.alarm(90)  # Where one host takes part in a sum and another does not, both wait for ever.
if hosts is None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
else:
    # In the place of GPUs, which nobody here has: all workers' devices, by the names that a cluster gives them.
    logical_devices = tf.config.list_logical_devices
    tf.config.list_logical_devices = lambda kind=None: logical_devices("CPU")
workers = join_workers(strategy="auto" if hosts else "mirrored", hosts=hosts, rank=rank)
strategy = workers.strategy


def copies(variable):
    return [np.asarray(copy).tolist() for copy in strategy.experimental_local_results(variable.value)]


def train(clip_norm, overflowing):
    set_seed(0)
    with strategy.scope(), precision_scope("mixed_float16"):
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=2.0**16)
        model = keras.Sequential([
            keras.Input((4, 4, 3)),
            keras.layers.Rescaling(8 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(3, use_bias=False, kernel_initializer="zeros"),
            keras.layers.Activation("softmax", dtype="float32"),
        ])
        phases = [compile_phase(model, optimizer)]
    trainer = Trainer(
        model, strategy, phases=phases, label_smoothing=0.0, clip_norm=clip_norm,
        num_workers=workers.cluster.num_workers,
    )
    images = np.zeros((2, 4, 4, 3), np.uint8)
    images[overflowing] = 255
    mine = slice(None) if hosts is None else slice(rank, rank + 1)
    batch = (tf.constant(images[mine]), tf.constant([0, 1], tf.int32)[mine])
    found = {"before": copies(model.trainable_variables[0])}
    for step in range(12):
        trainer.train(*trainer.distributed([batch]))
        if step == 0:
            found["skipped"] = copies(model.trainable_variables[0])
            found["scale"] = copies(optimizer.dynamic_scale)
            found["iterations"] = copies(optimizer.iterations)
    found["after"] = copies(model.trainable_variables[0])
    found["scale after"] = copies(optimizer.dynamic_scale)
    return found


result = {
    f"{clip_norm} {overflowing}": train(clip_norm, overflowing)
    for clip_norm in (None, 0.5) for overflowing in ([], [0], [1], [0, 1])
}
result["names"] = [device.name for device in tf.config.list_logical_devices("GPU")]
print(json.dumps(result))
"""
CASES = [(clip_norm, overflowing) for clip_norm in (None, 0.5) for overflowing in ([0], [1], [0, 1])]


def run_on_devices() -> list[dict]:
    argv = [sys.executable, "-c", PROGRAM, json.dumps([None, None])]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(done.stdout.splitlines()[-1])]


def run_on_hosts(folder) -> list[dict]:
    hosts = "127.0.0.1:2222,127.0.0.1:2223"
    commands = [[sys.executable, "-c", PROGRAM, json.dumps([hosts, rank])] for rank in (0, 1)]
    with loopback.side_by_side(commands, folder) as group:
        assert group.wait() == [0, 0], group.logs()
        return [json.loads(log.splitlines()[-1]) for log in group.logs()]


@pytest.fixture(
    scope="module",
    params=[
        "devices",
        pytest.param(
            "hosts",
            marks=[pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=str(REASON))],
        ),
    ],
)
def results(request, tmp_path_factory):
    """What each process found; two devices are in one."""
    if request.param == "devices":
        return run_on_devices()
    return run_on_hosts(tmp_path_factory.mktemp("logs"))


def copies(results: list[dict], case: str, name: str) -> list:
    """The copy of each device."""
    found = [copy for result in results for copy in result[case][name]]
    assert len(found) == 2
    return found


@pytest.mark.parametrize(("clip_norm", "overflowing"), CASES)
def test_the_step_is_left_out_everywhere(results, clip_norm, overflowing):
    case = f"{clip_norm} {overflowing}"
    before = copies(results, case, "before")
    assert copies(results, case, "skipped") == before
    assert copies(results, case, "iterations") == [0, 0]
    assert copies(results, case, "scale") == [2.0**15] * 2


@pytest.mark.parametrize(("clip_norm", "overflowing"), CASES)
def test_training_goes_on_with_the_same_numbers_everywhere(results, clip_norm, overflowing):
    case = f"{clip_norm} {overflowing}"
    (before, _), (mine, theirs) = (copies(results, case, name) for name in ("before", "after"))
    assert mine == theirs != before
    assert all(abs(weight) < 1e3 for row in mine for weight in row)  # Not where it is NaN.
    scales = copies(results, case, "scale after")
    assert scales[0] == scales[1] < 2.0**16


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_without_overflow_no_step_is_left_out(results, clip_norm):
    """White pictures are what overflows: the loss scale alone does not."""
    assert copies(results, f"{clip_norm} []", "iterations") == [1, 1]


def test_devices_have_the_names_of_a_cluster(results):
    if len(results) == 1:
        pytest.skip("one host")
    names = [f"/job:worker/replica:0/task:{rank}/device:CPU:0" for rank in (0, 1)]
    assert [sorted(result["names"]) for result in results] == [names, names]
