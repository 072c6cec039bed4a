import re

import numpy as np
import pytest
import tensorflow as tf

from shardstream.ingest.common.errors import ConfigError
from shardstream.train.distributed.strategy import (
    check_batch_size,
    fitting_batch_size,
    make_strategy,
    precision_for,
    resolve_jit_compile,
    resolve_precision,
    set_seed,
    versions,
)


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ([], "float32"),  # A CPU.
        ([(9, 0)], "mixed_bfloat16"),
        ([(8, 0)], "mixed_bfloat16"),
        ([(7, 5)], "mixed_float16"),
        ([(7, 0)], "mixed_float16"),
        ([(6, 1)], "float32"),  # Pascal is slower in float16.
        ([(8, 6), (7, 5)], "mixed_float16"),  # What all of them do well.
        ([(8, 6), (6, 0)], "float32"),
        ([(8, 6), None], "float32"),
    ],
)
def test_precision_by_compute_capability(capabilities, precision):
    assert precision_for(capabilities) == precision


def test_precision_that_was_asked_for():
    assert resolve_precision("mixed_float16") == "mixed_float16"


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="for machines without a GPU")
def test_one_cpu(monkeypatch):
    cpus = tf.config.list_logical_devices("CPU")[:1]  # Other tests may have divided it.
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: cpus if kind == "CPU" else [])
    assert resolve_precision("auto") == "float32"
    assert make_strategy("auto") is tf.distribute.get_strategy()
    with pytest.raises(ConfigError, match=re.escape("strategy is 'mirrored', but TensorFlow sees no GPU")):
        make_strategy("mirrored")


@pytest.mark.parametrize(
    ("wanted", "num_replicas", "num_gpus", "expected"),
    [
        ("auto", 1, 0, "off"),
        ("auto", 1, 1, "on"),
        ("auto", 2, 2, "off"),
        ("off", 1, 1, "off"),
        ("on", 1, 0, "on"),
    ],
)
def test_when_xla_compiles(monkeypatch, wanted, num_replicas, num_gpus, expected):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["GPU"] * num_gpus)
    assert resolve_jit_compile(wanted, num_replicas) == expected


def test_xla_on_several_devices_is_refused():
    with pytest.raises(ConfigError, match="jit_compile is on, but XLA cannot compile a step of 2 devices"):
        resolve_jit_compile("on", 2)


def test_batches_are_split_evenly():
    check_batch_size(32, 4)
    with pytest.raises(ConfigError, match=re.escape("choose for example --batch-size 30")):
        check_batch_size(32, 3)
    with pytest.raises(ConfigError, match=re.escape("choose for example --batch-size 4")):
        check_batch_size(2, 4)


@pytest.mark.parametrize(
    ("num_replicas", "expected"), [(1, 32), (3, 30), (4, 32), (5, 30), (6, 30), (7, 28), (8, 32), (40, 40)]
)
def test_a_default_batch_fits_any_number_of_devices(num_replicas, expected):
    assert fitting_batch_size(32, num_replicas) == expected
    check_batch_size(expected, num_replicas)


def test_seed():
    set_seed(5)
    first = tf.random.normal([3]).numpy()
    set_seed(5)
    np.testing.assert_array_equal(first, tf.random.normal([3]).numpy())


def test_versions_name_what_a_result_depends_on():
    assert versions()["tensorflow"] == tf.__version__
    assert list(versions()) == ["python", "shardstream", "tensorflow", "keras", "numpy"]
