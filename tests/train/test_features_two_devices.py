"""The pass of a backbone over all images, on two logical CPU devices against one."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# Logical devices have to be made before TensorFlow starts, so this runs in a process of its own.
PROGRAM = """
import collections, json, sys
from pathlib import Path

import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from shardstream.train.config import TrainConfig
from shardstream.train.engine import features
from shardstream.train.run import train_and_evaluate
from shardstream.train.runs.saved_model import load_model

data_dir, runs = sys.argv[1:]
result = {}

class Numpy:
    # Counts the tensors that are copied to the host, by their device.

    def __getattr__(self, name):
        return getattr(np, name)

    def asarray(self, values, *dtype):
        if tf.is_tensor(values):
            calls[values.device[-5:]] += 1
        return np.asarray(values, *dtype)


features.np = Numpy()
weights = []
for strategy in ("default", "mirrored"):
    calls = collections.Counter()
    run = Path(runs) / strategy
    options = {"model": "lite0", "image_size": 48, "cache": "none", "strategy": strategy}
    train_and_evaluate(TrainConfig(data_dir=Path(data_dir), run=run, **options))
    weights.append(load_model(run)[0].get_weights())
    result[strategy] = calls
result["same"] = all((one == two).all() for one, two in zip(*weights, strict=True))
print(json.dumps(result))
"""


def test_two_devices_share_the_batches_and_the_head_is_that_of_one(make_dataset, tmp_path):
    """192 images are 6 batches, and 50 are 2."""
    info = make_dataset(num_train=192, num_validation=50)
    call = [sys.executable, "-c", PROGRAM, str(info.data_dir), str(tmp_path)]
    done = subprocess.run(call, check=True, capture_output=True, text=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["default"] == {"CPU:0": 8}
    assert result["mirrored"] == {"CPU:0": 4, "CPU:1": 4}
    assert result["same"]
