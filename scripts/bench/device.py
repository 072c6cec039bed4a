"""Measures the fraction of time the device waits for input in training, by cache, for a small and a large model.

    python -m scripts.bench.device DATA [--models small EfficientNetV2S] [--batch-size 128] [--secs 5]
    KERAS_BACKEND=jax python -m scripts.bench.device DATA ...

The baseline is training on the same batch repeatedly; the additional time with real input is waiting. With TensorFlow
it is the training of `shardstream-train`, as measured by `doctor`, in mixed precision if the GPU supports it. With
Keras on JAX, for machines whose TensorFlow has no GPU, it is the same models on the same datasets in a JAX step: that
measures the input, not our loop.
"""

import collections
import dataclasses
import itertools
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tyro

from shardstream.train.startup import start_tensorflow

_CACHES = ("none", "memory", "disk")
# Batches in transfer to the JAX device while it computes.
_AHEAD = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Measures how much of the time the device waits for input."""

    data_dir: tyro.conf.Positional[Path]
    """A dataset folder."""
    models: tuple[str, ...] = ("small", "EfficientNetV2S")
    """As `shardstream-train --model` has them."""
    batch_size: int = 128
    """Images of a batch."""
    image_size: int | None = None
    """Height and width; by default the stored size."""
    cache_dir: Path | None = None
    """On the disk that is meant with the cache disk."""
    secs: float = 5.0
    """For how long each is measured."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """Rates of one model with one cache, in images per second."""

    model: str
    precision: str
    cache: str
    step_rate: float
    input_rate: float
    rate: float

    @property
    def device_wait(self) -> float:
        """The fraction of time that the device waits; never below 0, though measurements vary."""
        return max(0.0, 1 - self.rate / self.step_rate)


def main(config: BenchConfig) -> None:
    """Runs the benchmark and prints a table and one JSON line."""
    start_tensorflow()
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    measure = measure_jax if backend == "jax" else measure_tensorflow
    rows = [row for model in config.models for row in measure(config, model)]
    print("| model | precision | cache | step alone | input alone | both, img/s | the device waits |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        rates = " | ".join(f"{rate:,.0f}" for rate in (row.step_rate, row.input_rate, row.rate))
        print(f"| {row.model} | {row.precision} | {row.cache} | {rates} | {row.device_wait:.1%} |")
    figures = {
        "rows": [dataclasses.asdict(row) for row in rows],
        "backend": backend,
        "device": device_name(backend),
        "batch_size": config.batch_size,
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
    }
    print(json.dumps(figures))


def device_name(backend: str) -> str:
    """Returns the name of the training device."""
    if backend == "jax":
        import jax  # pyright: ignore[reportMissingImports]

        return str(jax.devices()[0].device_kind)
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(gpus[0])["device_name"] if gpus else platform.machine()


def measure_tensorflow(config: BenchConfig, model: str) -> list[Row]:
    """Returns the rates of training with `shardstream-train`."""
    from shardstream.train.config import DoctorConfig
    from shardstream.train.distributed.strategy import resolve_precision
    from shardstream.train.profiling.doctor import diagnose

    doctor = DoctorConfig(
        data_dir=config.data_dir,
        model=model,
        batch_size=config.batch_size,
        image_size=config.image_size,
        cache_dir=config.cache_dir,
        strategy="default",
        seconds=config.secs,
    )
    found = diagnose(doctor)
    return [
        Row(
            model=model,
            precision=resolve_precision("auto"),
            cache=tier.cache,
            step_rate=found.step_images_per_sec,
            input_rate=tier.input_images_per_sec,
            rate=tier.images_per_sec,
        )
        for tier in found.tiers
    ]


def measure_jax(config: BenchConfig, model: str) -> list[Row]:
    """Returns the rates of the same training in a JAX step."""
    import jax  # pyright: ignore[reportMissingImports]
    import keras
    import tensorflow as tf

    from shardstream.train.data.dataset import load_dataset

    tf.config.set_visible_devices([], "GPU")  # JAX uses it.
    precision = "float32" if jax.default_backend() == "cpu" else "mixed_bfloat16"
    keras.config.set_dtype_policy(precision)
    data = load_dataset(config.data_dir)
    image_size = config.image_size or data.image_size or 300
    train = jax_step(model, image_size, len(data.class_names))
    rows = []
    with tempfile.TemporaryDirectory(dir=config.cache_dir) as folder:

        def batches(cache: Any, seed: int) -> Iterator[Any]:
            dataset = load_dataset(config.data_dir).train_batches(
                config.batch_size, seed=seed, image_size=image_size, cache=cache, cache_dir=Path(folder)
            )
            return dataset.as_numpy_iterator()

        batch = jax.device_put(next(batches("none", 0)))
        step_rate = config.batch_size * repeat(lambda: train(*batch), config.secs, wait=jax.block_until_ready)
        for cache in _CACHES:
            alone = batches(cache, 1)
            input_rate = config.batch_size * repeat(lambda alone=alone: next(alone), config.secs)
            ahead = sent_ahead(map(jax.device_put, batches(cache, 2)))
            rate = config.batch_size * repeat(
                lambda ahead=ahead: train(*next(ahead)), config.secs, wait=jax.block_until_ready
            )
            rows.append(
                Row(
                    model=model,
                    precision=precision,
                    cache=cache,
                    step_rate=step_rate,
                    input_rate=input_rate,
                    rate=rate,
                )
            )
    return rows


def jax_step(model_name: str, image_size: int, num_classes: int) -> Callable[..., Any]:
    """Returns a function that trains on (images, labels) and returns the loss without waiting for the device."""
    import jax  # pyright: ignore[reportMissingImports]
    import keras

    from shardstream.train.models.build import build_model

    model: Any = build_model(model_name, image_size=image_size, num_classes=num_classes, seed=0)
    optimizer: Any = keras.optimizers.Adam(1e-3)
    optimizer.build(model.trainable_variables)

    def loss_of(trainable: Any, others: Any, images: Any, labels: Any) -> tuple[Any, Any]:
        probabilities, others = model.stateless_call(trainable, others, images, training=True)
        losses: Any = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
        return losses.mean(), others

    @jax.jit
    def step(state: Any, images: Any, labels: Any) -> tuple[Any, Any]:
        trainable, others, of_optimizer = state
        (loss, others), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            trainable, others, images.astype("float32"), labels
        )
        trainable, of_optimizer = optimizer.stateless_apply(of_optimizer, gradients, trainable)
        return loss, (trainable, others, of_optimizer)

    variables = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    state = [tuple([variable.value for variable in group] for group in variables)]

    def train(images: Any, labels: Any) -> Any:
        loss, state[0] = step(state[0], images, labels)
        return loss

    return train


def sent_ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """Yields `batches`, while the next ones are in transfer."""
    waiting = collections.deque(itertools.islice(batches, _AHEAD))
    while waiting:
        yield waiting.popleft()
        waiting.extend(itertools.islice(batches, 1))


def repeat(work: Callable[[], Any], secs: float, *, wait: Callable[[Any], Any] = lambda _: None) -> float:
    """Returns calls of `work` per second, after a warm-up of half the time; `wait` waits for the device."""
    count_done(work, secs / 2, wait)
    start = time.perf_counter()
    count = count_done(work, secs, wait)
    return count / (time.perf_counter() - start)


def count_done(work: Callable[[], Any], secs: float, wait: Callable[[Any], Any]) -> int:
    """Returns the number of calls of `work` within `secs`, at least one."""
    start = time.perf_counter()
    for count in itertools.count(1):
        result = work()
        if time.perf_counter() - start >= secs:
            wait(result)
            return count
    raise AssertionError


if __name__ == "__main__":
    main(tyro.cli(BenchConfig))
