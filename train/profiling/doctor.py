"""Measures the rates that limit training speed, and which cache would increase it."""

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from shardstream.ingest.common.byte_size import format_size
from shardstream.train.config import DoctorConfig
from shardstream.train.data.cache import USABLE_FRACTION, Tier, free_bytes, nearest_folder
from shardstream.train.data.corruption import naming_corruption
from shardstream.train.data.dataset import Dataset
from shardstream.train.data.disk_cache import default_cache_dir
from shardstream.train.engine.trainer import Trainer
from shardstream.train.resolve import SPLITS, ResolvedConfig, make_model, prepare

# Number of images to measure a cache with: at 300x300 they are far larger than the caches of a CPU.
_CACHED_EXAMPLES = 1024
# Measurements of a few seconds vary by this much.
_MIN_GAIN = 1.1
_TIERS: tuple[Tier, ...] = ("none", "memory", "disk")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TierRates:
    """Rates with one cache tier, filled in advance: of the input alone, of training, and the fraction it waited."""

    cache: Tier
    input_images_per_sec: float
    images_per_sec: float
    input_wait: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """Results of the measurements.

    Attributes:
        cache: The tier that training would use.
        step_images_per_sec: Rate of training on the same batch repeatedly.
        tiers: The rates with each tier that was measured.
        unfit: Why the other tiers were not measured.
        advice: What would make training faster; empty if nothing measured here would.
    """

    cache: Tier
    step_images_per_sec: float
    tiers: tuple[TierRates, ...]
    unfit: dict[Tier, str]
    advice: str


def diagnose(config: DoctorConfig) -> Diagnosis:
    """Measures the training that `config` describes, on this host only.

    Raises:
        ConfigError: An option does not fit the dataset or the machine.
        DatasetError: The dataset is missing, incomplete or corrupt.
        OSError: The disk of the cache in use cannot be written.
    """
    setup = prepare(config.train_config())
    trainer, _ = make_model(setup)
    unfit = _unfit(setup)
    fitting: list[Tier] = [tier for tier in ("memory", "disk", "none") if tier not in unfit]
    cache = fitting[0] if config.cache == "auto" else config.cache
    unfit.pop(cache, None)  # Measured if requested, even if it is unlikely to fit.
    step = _measure_step(setup, trainer, config.seconds)
    tiers = []
    for tier in _TIERS:
        if tier not in unfit:
            try:
                tiers.append(_measure_tier(setup, trainer, tier, config.seconds))
            except OSError as error:
                if tier == cache:
                    raise
                unfit[tier] = f"{error.filename or tier}: {error.strerror}"
    stores_larger = setup.info.image.size != setup.image_size
    advice = advise(cache, step, tiers, smaller_size=setup.image_size if stores_larger else None)
    return Diagnosis(cache=cache, step_images_per_sec=step, tiers=tuple(tiers), unfit=unfit, advice=advice)


def advise(
    cache: Tier, step_images_per_sec: float, tiers: Sequence[TierRates], *, smaller_size: int | None
) -> str:
    """Returns the one change that these rates suggest; empty if no gain exceeds the measurement error.

    Without input, training would save at most the time it waits, so no predicted gain is larger than that.

    Args:
        cache: The tier in use.
        step_images_per_sec: The rate of the step alone.
        tiers: The rates of the tiers.
        smaller_size: The input size of the model, if the stored images are larger.
    """
    now = next(tier for tier in tiers if tier.cache == cache)
    most = 1 / max(1 - now.input_wait, 1e-3)
    best = max(tiers, key=lambda tier: tier.images_per_sec)
    gain = min(best.images_per_sec / now.images_per_sec, most)
    if best is not now and gain >= _MIN_GAIN:
        return (
            f"--cache {best.cache} makes this training about {gain - 1:.0%} faster: {best.images_per_sec:,.0f} img/s "
            f"instead of {now.images_per_sec:,.0f}, {best.input_wait:.0%} of the time waiting for input instead of "
            f"{now.input_wait:.0%}"
        )
    if most < _MIN_GAIN or now.input_images_per_sec * _MIN_GAIN > step_images_per_sec:
        return ""
    remedy = "more CPU cores"
    if smaller_size is not None and cache == "none":
        remedy += (
            f", or images stored at {smaller_size}x{smaller_size} (shardstream-ingest build --image-size)"
        )
    return (
        f"the input limits this training: it gives {now.input_images_per_sec:,.0f} img/s, and the step takes "
        f"{step_images_per_sec:,.0f}; no cache that was measured helps; {remedy} would, by {most - 1:.0%} at most"
    )


def table_lines(diagnosis: Diagnosis) -> list[str]:
    """Returns the lines of a table of the rates."""
    measured = {tier.cache: tier for tier in diagnosis.tiers}
    titles = ("input alone", "step alone", "both", "waiting")
    rows = [("img/s", "".join(f"{title:>13}" for title in titles))]
    for name in _TIERS:
        if tier := measured.get(name):
            rates = (tier.input_images_per_sec, diagnosis.step_images_per_sec, tier.images_per_sec)
            text = "".join(f"{rate:>13,.0f}" for rate in rates) + f"{tier.input_wait:>13.0%}"
        else:
            text = f"  {diagnosis.unfit[name]}"
        rows.append((f"--cache {name}" + " (in use)" * (name == diagnosis.cache), text))
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}{text}" for name, text in rows]


def _measure_step(setup: ResolvedConfig, trainer: Trainer, secs: float) -> float:
    batch = next(_batches(setup, trainer, Dataset(setup.info), "none", None, setup.config.seed))
    steps, took = _repeat(lambda: trainer.train(batch), secs, trainer)
    return steps * setup.batch_size / took


def _measure_tier(setup: ResolvedConfig, trainer: Trainer, tier: Tier, secs: float) -> TierRates:
    with contextlib.ExitStack() as stack:
        folder = None
        if tier == "disk":  # On the disk that training would use, and removed.
            parent = nearest_folder(setup.config.cache_dir or default_cache_dir())
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="doctor-", dir=parent)))
        data = Dataset(setup.info)  # Keeps its caches, and would return that of one tier for another.
        batches = _batches(setup, trainer, data, tier, folder, setup.config.seed)
        steps, took = _repeat(lambda: next(batches), secs, trainer)
        alone = steps * setup.batch_size / took
        # Another order, so that it does not start with the records just read.
        batches = _batches(setup, trainer, data, tier, folder, setup.config.seed + 1)
        waits: list[float] = []

        def train() -> None:
            start = time.perf_counter()
            batch = next(batches)
            waits.append(time.perf_counter() - start)
            trainer.train(batch)

        steps, took = _repeat(train, secs, trainer)
    return TierRates(
        cache=tier,
        input_images_per_sec=alone,
        images_per_sec=steps * setup.batch_size / took,
        input_wait=min(1.0, sum(waits[-steps:]) / took),
    )


def _batches(
    setup: ResolvedConfig, trainer: Trainer, data: Dataset, tier: Tier, cache_dir: Path | None, seed: int
) -> Iterator[Any]:
    """Returns the batches of training; with a cache those of one of several hosts, so that only its part is decoded."""
    num_examples, batch_size = setup.info.split("train").num_examples, setup.batch_size
    count = 1 if tier == "none" else max(1, min(64, num_examples // max(_CACHED_EXAMPLES, batch_size)))
    batches = data.train_batches(
        batch_size * count,
        seed=seed,
        image_size=setup.image_size,
        shard=(0, count),
        cache=tier,
        cache_dir=cache_dir,
    )
    return trainer.distributed(naming_corruption(batches))


def _unfit(setup: ResolvedConfig) -> dict[Tier, str]:
    """Returns why the tiers that the decoded images would not fit in are not measured."""
    num_images = sum(setup.info.split(name).num_examples for name in SPLITS)
    needed = num_images * setup.image_size**2 * 3
    free = free_bytes(setup.config.cache_dir or default_cache_dir())
    return {
        tier: f"the decoded images take {format_size(needed)}, {format_size(num_bytes)} are free"
        for tier, num_bytes in free.items()
        if needed > USABLE_FRACTION * num_bytes
    }


def _repeat(work: Callable[[], object], secs: float, trainer: Trainer) -> tuple[int, float]:
    """Returns how often `work` was executed within `secs`, at least once, and the seconds it took.

    After a warm-up of half the time: it starts the threads and uses up prefetched batches.
    """
    count, start = 0, 0.0
    for limit in (secs / 2, secs):
        count, start = 0, time.perf_counter()
        while not count or time.perf_counter() - start < limit:
            work()
            count += 1
        trainer.trained.num_seen()  # Waits for the device.
    return count, time.perf_counter() - start
