"""Features of images, from a pretrained backbone or the model of a run."""

import io
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import PIL.Image

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.common.safe_files import read_regular
from shardstream.ingest.images.process import process_image
from shardstream.ingest.images.settings import ImageSettings
from shardstream.train.data.pixels import decode_images
from shardstream.train.engine.features import BATCH_SIZE, make_extractor
from shardstream.train.models.build import CLASSIFIER, build_pretrained_backbone
from shardstream.train.models.efficientnet_lite import EMBEDDING
from shardstream.train.models.registry import BACKBONES
from shardstream.train.runs.saved_model import load_model

# A file that declares more pixels is refused before it is decoded.
_MAX_PIXELS = 100_000_000
# The same limit as in ingest.
_MAX_FILE_BYTES = 400_000_000

Image = str | Path | bytes | np.ndarray


def embed(model: str | Path, images: Iterable[Image]) -> np.ndarray:
    """Returns the features of images, float32 [num_images, num_features], rounded to float16.

    Args:
        model: "lite0", "lite1" or "lite2", for the 1,280 features that it classifies ImageNet by, or a run folder, for
            those that the last layer of its model receives.
        images: Paths, the bytes of files, or uint8 arrays [height, width, 3], RGB.

    Raises:
        ConfigError: The weights of the backbone are not installed or were modified.
        DatasetError: There is no such run, or an image cannot be decoded.
    """
    backbone, stored = _load(model)
    image_size = int(backbone.input_shape[1])
    extract = make_extractor(backbone)
    parts, batch = [], []
    for number, image in enumerate(images):
        batch.append(_pixels(image, number, stored, image_size))
        if len(batch) == BATCH_SIZE:
            parts.append(extract(np.stack(batch)))
            batch = []
    if batch:
        parts.append(extract(np.stack(batch)))
    if not parts:
        return np.zeros((0, int(backbone.output_shape[-1])), np.float32)
    features = np.concatenate(parts).astype(np.float32)
    if not np.isfinite(features).all():
        raise DatasetError(f"{model}: gives features that are not finite; take a run that ended well")
    return features


def _load(model: str | Path) -> tuple[keras.Model, ImageSettings]:
    """Returns the feature extractor, and the settings of the images it was trained on."""
    if isinstance(model, str) and model in BACKBONES:
        size = BACKBONES[model]
        whole = build_pretrained_backbone(model, image_size=size)
        backbone = keras.Model(whole.inputs, whole.get_layer(EMBEDDING).output)
        return backbone, ImageSettings(size=size, resize="stretch", encoding="raw", quality=95)
    trained, info = load_model(Path(model))
    if all(layer.name != CLASSIFIER for layer in trained.layers):
        raise DatasetError(
            f"{model}: its model has no layer {CLASSIFIER!r}, so its feature layer is unknown; take a "
            "run that `shardstream-train` made"
        )
    return keras.Model(trained.inputs, trained.get_layer(CLASSIFIER).input), info.stored


def _pixels(image: Image, number: int, stored: ImageSettings, image_size: int) -> np.ndarray:
    """Returns uint8 [size, size, 3]: the image as it would be stored, and decoded as in training."""
    name = str(image) if isinstance(image, str | Path) else f"image number {number}"
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DatasetError(f"{name}: {image.dtype} {image.shape}, expected uint8 [height, width, 3]")
        data, suffix = _to_png(image), ".png"
    elif isinstance(image, bytes):
        data, suffix = image, ""
    else:
        try:
            data, suffix = read_regular(Path(image), max_bytes=_MAX_FILE_BYTES), Path(image).suffix
        except (OSError, ValueError) as error:
            raise DatasetError(f"{name}: cannot be read ({getattr(error, 'strerror', error)})") from None
    processed = process_image(data, suffix, image=stored, max_pixels=_MAX_PIXELS)
    if processed.verdict == "rejected":
        raise DatasetError(f"{name}: {processed.reason}")
    (pixels,) = decode_images([processed.stored], stored, image_size=image_size, resize=stored.resize)
    return pixels


def _to_png(image: np.ndarray) -> bytes:
    # As a file, so that an array is processed exactly like an image file.
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "PNG", compress_level=0)
    return file.getvalue()
