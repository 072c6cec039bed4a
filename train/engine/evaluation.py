"""Evaluation: each example exactly once, on any number of replicas."""

import dataclasses
from collections.abc import Callable

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.data.input_pipeline import ExampleSource, make_eval_batches
from shardstream.train.data.share import eval_steps
from shardstream.train.engine.trainer import Trainer


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics over a whole split: mean cross-entropy and the share of right answers."""

    loss: float
    accuracy: float
    num_examples: int


def evaluate(
    steps: Trainer,
    info: DatasetInfo,
    source: ExampleSource,
    *,
    batch_size: int,
    after_step: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Returns the figures of the model of `steps` on the split of `source`; changes nothing else of its state.

    Of several workers each sees its share, and all get the figures of the whole. `after_step` is called after each
    batch.

    Raises:
        DatasetError: A shard is missing, cut or damaged, or the split did not come exactly once.
    """
    split = info.split(source.split.name)
    num_steps = eval_steps(split, batch_size, steps.num_workers)
    parts = make_eval_batches(
        source,
        batch_size=batch_size // steps.num_workers,
        num_replicas=steps.num_local_replicas,
        num_steps=num_steps,
    )
    steps.evaluated.reset()
    for batch in steps.distributed(parts):
        steps.evaluate(source.on_devices(batch))
        after_step()
    seen, expected = steps.evaluated.num_seen(), split.num_examples
    if seen != expected:
        raise DatasetError(
            f"{info.data_dir}: evaluated {seen:,} pictures of split {split.name!r}, which has {expected:,}"
        )
    means = steps.evaluated.means()
    return Evaluation(loss=means["loss"], accuracy=means["accuracy"], num_examples=seen)
