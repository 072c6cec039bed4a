"""Decodes the data of a run before its first step."""

import contextlib

from shardstream.ingest.common.progress import Advance, progress
from shardstream.train.config import TrainConfig
from shardstream.train.data.cache import Tier
from shardstream.train.engine.training_data import TrainingData, make_training_data
from shardstream.train.models.registry import BACKBONES
from shardstream.train.resolve import ResolvedConfig, fine_tune


def make_data(setup: ResolvedConfig) -> TrainingData:
    """Returns the training and evaluation data of a run, decoded into the requested cache."""
    config = setup.config
    return make_training_data(
        setup.data,
        batch_size=setup.batch_size,
        seed=config.seed,
        image_size=setup.image_size,
        shard=setup.workers.shard,
        cache=_cache(config),
        cache_dir=config.cache_dir,
        max_bad_records=config.max_bad_records,
        progress=_DecodingProgress(),
    )


def _cache(config: TrainConfig) -> Tier:
    if config.model in BACKBONES and fine_tune(config) == "none":
        return "none"  # The features are there, and no epoch follows.
    return config.cache


class _DecodingProgress:
    """Shows the progress of filling caches, with a bar for each."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._advance: Advance | None = None
        self._done = 0

    def __call__(self, done: int, total: int) -> None:
        if self._advance is None:
            self._advance = self._stack.enter_context(progress("decoding", total, "images"))
        self._advance(done - self._done)
        self._done = done
        if done == total:
            self._stack.close()
            self._advance, self._done = None, 0
