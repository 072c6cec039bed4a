"""What only a GPU can show. `scripts/test -m gpu` runs these on a machine that has one."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from shardstream.train.config import TrainConfig
from shardstream.train.data.dataset import Dataset
from shardstream.train.distributed.strategy import make_strategy, precision_scope, resolve_precision, set_seed
from shardstream.train.engine.trainer import Trainer
from shardstream.train.models.build import build_model
from shardstream.train.models.phases import compile_phase
from shardstream.train.run import train_and_evaluate
from shardstream.train.runs.saved_model import load_model

GPUS = tf.config.list_physical_devices("GPU")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not GPUS, reason="no GPU")]


def on_gpu(tensor: tf.Tensor) -> bool:
    return "GPU" in tensor.device


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_batches_that_are_sent_ahead_are_on_the_gpu_and_the_same(striped, tmp_path, cache):
    options = {"seed": 3, "cache": cache, "cache_dir": tmp_path}
    here = Dataset(striped).train_batches(16, **options)
    there = Dataset(striped).train_batches(16, device="/GPU:0", **options)
    for mine, theirs, _ in zip(here, there, range(30), strict=False):
        assert all(map(on_gpu, theirs))
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_step_in_mixed_precision_learns_on_the_gpu(striped, policy, jit_compile):
    set_seed(0)
    with precision_scope(policy):
        model = build_model("small", image_size=16, num_classes=3, seed=0)
        phases = [compile_phase(model, keras.optimizers.Adam(0.01))]
    trainer = Trainer(
        model,
        tf.distribute.get_strategy(),
        phases=phases,
        label_smoothing=0.0,
        jit_compile=jit_compile,
        clip_norm=1.0,
    )
    batches = iter(Dataset(striped).train_batches(32, seed=1, cache="memory", device="/GPU:0"))
    losses = []
    for _ in range(6):
        trainer.trained.reset()
        for _ in range(10):
            trainer.train(next(batches))
        losses.append(trainer.trained.means()["loss"])
    assert all(on_gpu(variable.value) for variable in model.trainable_variables)
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.7 * losses[0]
    assert trainer.is_finite(trainer.state())


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_a_run_chooses_what_the_gpu_does_well_and_predicts_alike_on_the_cpu(striped, tmp_path, cache):
    run = tmp_path / "run"
    config = TrainConfig(data_dir=striped.data_dir, run=run, model="small", epochs=2, cache=cache)
    result = train_and_evaluate(config)
    decided = json.loads((run / "config.json").read_text())
    assert decided["precision"] == resolve_precision("auto")
    assert decided["jit_compile"] == ("on" if len(GPUS) == 1 else "off")
    with tf.device("/CPU:0"):
        model, _ = load_model(run)
        images, labels, _ = next(
            Dataset(striped).eval_batches("validation", batch_size=50).as_numpy_iterator()
        )
        probabilities = np.asarray(model(images, training=False))
    loss = float(-np.log(probabilities[np.arange(50), labels]).mean())
    assert loss == pytest.approx(result.val_loss, rel=0.05)


@pytest.mark.skipif(len(GPUS) < 2, reason="one GPU")
def test_all_gpus_share_a_batch():
    strategy = make_strategy("auto")
    assert strategy.num_replicas_in_sync == len(GPUS)
