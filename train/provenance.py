"""Provenance metadata of a model file."""

import dataclasses

from shardstream.train.distributed.strategy import versions
from shardstream.train.models.pretrained import PACKAGES
from shardstream.train.resolve import ResolvedConfig
from shardstream.train.runs.saved_model import ModelInfo, ModelWriter


def make_model_info(setup: ResolvedConfig, writer: ModelWriter) -> ModelInfo:
    """Returns the metadata of the model that `writer` writes."""
    image = setup.info.image
    return ModelInfo(
        class_names=setup.info.class_names,
        display_names=setup.info.display_names,
        image_size=setup.image_size,
        resize=image.resize,
        stored_size=image.size,
        encoding=image.encoding,
        quality=image.quality,
        model=setup.config.model,
        dataset_fingerprint=setup.info.fingerprint,
        num_parameters=writer.twin.count_params(),
        precision=setup.precision,
        versions=versions(),
        pretrained=_pretrained(setup),
    )


def _pretrained(setup: ResolvedConfig) -> dict[str, str] | None:
    config = setup.config
    if package := PACKAGES.get(config.model):
        described = {key: value for key, value in dataclasses.asdict(package).items() if key != "file"}
        return {**described, "trained_on": "ImageNet", "fine_tune": config.fine_tune or "none"}
    if config.weights == "none":
        return None
    return {"name": config.weights}
