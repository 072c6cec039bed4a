"""The candidates of `--model auto`: determined before training by dataset and options, and never changed later."""

import logging
from collections.abc import Sequence

from shardstream.ingest.common.errors import ConfigError
from shardstream.train.config import TrainConfig
from shardstream.train.models.optimizers import default_batch_size, make_recipe
from shardstream.train.models.pretrained import read_weights_file
from shardstream.train.models.registry import AUTO_BACKBONE, AUTO_TRAINED, MIN_BACKBONE_SIZE

logger = logging.getLogger(__name__)


def make_plan(config: TrainConfig, *, image_size: int, num_train: int) -> tuple[str, ...]:
    """Returns the candidate models, in order; logs the reason if there are fewer than two.

    Time and machine load have no influence: the same options, dataset and installation give the same plan.

    Args:
        config: The options.
        image_size: Height and width in pixels.
        num_train: Number of training examples.
    """
    if reason := _why_no_backbone(image_size):
        logger.warning("auto: %s alone, for %s", AUTO_TRAINED, reason)
        return (AUTO_TRAINED,)
    batch_size = config.batch_size or default_batch_size(make_recipe(AUTO_TRAINED, {}), num_train)
    if config.batch_size is None and batch_size > num_train:
        logger.info("auto: %s alone, for %d images fill no batch", AUTO_BACKBONE, num_train)
        return (AUTO_BACKBONE,)
    return (AUTO_BACKBONE, AUTO_TRAINED)


def _why_no_backbone(image_size: int) -> str:
    if image_size < MIN_BACKBONE_SIZE:
        return f"images of {image_size}x{image_size} show {AUTO_BACKBONE} too little"
    try:
        read_weights_file(AUTO_BACKBONE)
    except ConfigError as error:
        return f"the weights of {AUTO_BACKBONE} cannot be used ({error})"
    return ""


def log_plan(candidates: Sequence[str], *, epochs: int) -> None:
    """Logs in one line which models will be trained."""
    if len(candidates) > 1:
        logger.info(
            "auto: a classifier on the features of %s; then %s, %d epochs, unless cross-validation says that the "
            "features are enough",
            *candidates,
            epochs,
        )
