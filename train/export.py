"""Exports a trained model to a file for other programs: SavedModel, TFLite, ONNX or Keras."""

import dataclasses
import importlib.util
import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.common.safe_files import parse_errors, refuse_link
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.data.dataset import Dataset
from shardstream.train.distributed.strategy import versions
from shardstream.train.models.inference import inference_function
from shardstream.train.models.portable_resize import with_portable_resize
from shardstream.train.runs.run_folder import RunFolder, write_json
from shardstream.train.runs.saved_model import ModelInfo, check_probabilities, load_model
from shardstream.train.runs.training_dataset import find_training_dataset

logger = logging.getLogger(__name__)

Format = Literal["savedmodel", "tflite", "onnx", "keras"]
Quantization = Literal["none", "float16"]

# Number of validation images to measure the effect of float16 with.
_NUM_MEASURED = 500
_BATCH_SIZE = 50
_ONNX_OPSET = 17

_FILES: Mapping[Format, str] = {
    "savedmodel": "saved_model.pb",
    "tflite": "model.tflite",
    "onnx": "model.onnx",
    "keras": "model.keras",
}
DESCRIPTION = "labels.json"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class QuantizationCost:
    """Effect of half precision on predictions of validation images.

    Attributes:
        num_examples: Number of images.
        accuracy: Accuracy of the original model.
        accuracy_quantized: Accuracy of the quantized file.
        max_difference: The largest difference of a probability.
    """

    num_examples: int
    accuracy: float
    accuracy_quantized: float
    max_difference: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ExportResult:
    """Result of an export: the file, its description, its size, and the cost of quantization if measured."""

    path: Path
    description: Path
    num_bytes: int
    cost: QuantizationCost | None


def export_model(run_dir: Path, *, format: Format, quantize: Quantization = "none") -> ExportResult:
    """Writes the best model of a run to RUN/export/FORMAT, together with its classes and image settings.

    The file takes uint8 RGB images [n, height, width, 3] at the size of the model, and returns float32 probabilities
    [n, num_classes]. It does not resize images: TFLite has no area resizing, which training uses.

    Raises:
        ConfigError: The format needs a package that is not installed, or cannot be quantized.
        DatasetError: The run has no model.
    """
    if quantize != "none" and format != "tflite":
        raise ConfigError(f"--quantize {quantize} is for --format tflite; {format} files are float32")
    if format == "onnx":
        _check_onnx()
    RunFolder(run_dir).check_has_model()  # A model file alone has no folder to export to.
    model, info = load_model(run_dir)
    best_model = RunFolder(run_dir).best_model
    folder = run_dir / "export" / format
    refuse_link(folder.parent)
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".incomplete-") as staging:
        beside = Path(staging) / format
        beside.mkdir()
        path = beside / _FILES[format]
        with parse_errors(best_model, f"this model cannot be written as {format}; try another --format"):
            image = np.zeros((1, info.image_size, info.image_size, 3), np.float32)
            values = np.asarray(model(image, training=False), np.float32)
            check_probabilities(values, num_classes=len(info.class_names), name=str(best_model))
            logger.info("writes the model as %s", format)
            _write(model, info, path, format, quantize, best_model)
        cost = _measure(run_dir, model, info, path) if quantize != "none" else None
        write_json(beside / DESCRIPTION, _description(info, format, quantize, cost))
        _replace(folder, beside)
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != DESCRIPTION]
    return ExportResult(
        path=folder if format == "savedmodel" else folder / _FILES[format],
        description=folder / DESCRIPTION,
        num_bytes=sum(file.stat().st_size for file in files),
        cost=cost,
    )


def _check_onnx() -> None:
    if importlib.util.find_spec("tf2onnx") is None or importlib.util.find_spec("onnx") is None:
        raise ConfigError(
            "--format onnx needs the packages tf2onnx and onnx: install them with `pip install '.[onnx]'` in the "
            "checkout of shardstream"
        )


def _write(
    model: keras.Model, info: ModelInfo, path: Path, format: Format, quantize: Quantization, best_model: Path
) -> None:
    match format:
        case "keras":
            shutil.copyfile(best_model, path)
        case "savedmodel":
            module = _Module(model, info)
            tf.saved_model.save(module, str(path.parent), signatures={"serving_default": module.predict})
        case "tflite":
            path.write_bytes(_to_tflite(_Module(with_portable_resize(model), info), quantize))
        case "onnx":
            _write_onnx(_Module(with_portable_resize(model), info), info, path)


class _Module(tf.Module):
    """The model as a function of uint8 images."""

    def __init__(self, model: keras.Model, info: ModelInfo) -> None:
        super().__init__()
        self.model = model
        self._call = inference_function(model)
        images = tf.TensorSpec([None, info.image_size, info.image_size, 3], tf.uint8, "images")
        self.predict = tf.function(self._predict, autograph=False, input_signature=[images])

    def _predict(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = self._call(tf.cast(images, tf.float32))
        return {"probabilities": tf.identity(probabilities, "probabilities")}


def _to_tflite(module: _Module, quantize: Quantization) -> bytes:
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.predict.get_concrete_function()], module
    )
    if quantize == "float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def _write_onnx(module: _Module, info: ModelInfo, path: Path) -> None:
    import tf2onnx  # pyright: ignore[reportMissingImports]

    size = info.image_size
    tf2onnx.convert.from_function(
        module.predict,
        input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8, "images")],
        opset=_ONNX_OPSET,
        output_path=str(path),
    )


def _description(
    info: ModelInfo, format: Format, quantize: Quantization, cost: QuantizationCost | None
) -> dict[str, Any]:
    packages = ("shardstream", "keras", "tensorflow", *(["tf2onnx", "onnx"] if format == "onnx" else []))
    return {
        "class_names": list(info.class_names),
        "display_names": list(info.display_names),
        "input": {
            "dtype": "uint8",
            "shape": [None, info.image_size, info.image_size, 3],
            "channels": "RGB, 0 to 255",
            "resize": info.resize,
            "stored_size": info.stored_size,
            "encoding": info.encoding,
            "quality": info.quality,
        },
        "output": {"dtype": "float32", "shape": [None, len(info.class_names)], "values": "probabilities"},
        "format": format,
        "quantization": quantize,
        "quantization_cost": None if cost is None else dataclasses.asdict(cost),
        "model": info.model,
        "dataset_fingerprint": info.dataset_fingerprint,
        "versions_training": dict(info.versions),
        "versions": versions(*packages),
    }


def _replace(folder: Path, beside: Path) -> None:
    """Moves an export to its place; replaces an earlier export of ours, but nothing else.

    Raises:
        ConfigError: The target exists and is not an export.
    """
    if folder.exists():
        if not (folder / DESCRIPTION).is_file():
            raise ConfigError(f"{folder}: holds something that is no export; move it away")
        folder.rename(beside.with_name("old"))  # In the staging folder, which is removed.
    beside.rename(folder)


def _measure(run_dir: Path, model: keras.Model, info: ModelInfo, path: Path) -> QuantizationCost | None:
    """Returns the cost of a TFLite file on validation images, if the dataset still exists."""
    dataset = find_training_dataset(run_dir, info)
    if dataset is None or "validation" not in dataset.splits:
        logger.warning(
            "the dataset of the run is not there any more: what quantization costs is not measured"
        )
        return None
    interpreter = tf.lite.Interpreter(str(path))
    images, labels = _validation_images(dataset, info)
    logger.info("compares it on %d validation images", len(labels))
    exact = np.concatenate(
        [
            np.asarray(model(images[i : i + _BATCH_SIZE], training=False))
            for i in range(0, len(images), _BATCH_SIZE)
        ]
    )
    found = run_tflite(interpreter, images)
    return QuantizationCost(
        num_examples=len(labels),
        accuracy=float((exact.argmax(axis=1) == labels).mean()),
        accuracy_quantized=float((found.argmax(axis=1) == labels).mean()),
        max_difference=float(np.abs(exact - found).max()),
    )


def run_tflite(interpreter: tf.lite.Interpreter, images: np.ndarray) -> np.ndarray:
    """Returns float32 [len(images), num_classes] probabilities of a TFLite model for uint8 images."""
    (before,), (after,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for first in range(0, len(images), _BATCH_SIZE):
        batch = images[first : first + _BATCH_SIZE]
        interpreter.resize_tensor_input(before["index"], batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(before["index"], batch)
        interpreter.invoke()
        found.append(interpreter.get_tensor(after["index"]))
    return np.concatenate(found)


def _validation_images(dataset: DatasetInfo, info: ModelInfo) -> tuple[np.ndarray, np.ndarray]:
    source = Dataset(dataset).source("validation", info.image_size, resize=info.resize, with_records=True)
    count = min(_NUM_MEASURED, dataset.split("validation").num_examples)
    chosen = np.linspace(0, dataset.split("validation").num_examples - 1, count).astype(np.int64)
    batches = [
        (images.numpy(), labels.numpy())
        for images, labels, _ in source.chosen(chosen, batch_size=_BATCH_SIZE)
    ]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    order = [dataset.class_names.index(name) for name in info.class_names]
    return images, np.argsort(order)[labels]
