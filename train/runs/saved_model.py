"""Models on disk, and the metadata needed to use them."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import keras
import numpy as np

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.common.safe_files import parse_errors, read_regular
from shardstream.ingest.images.settings import MAX_STORED_SIZE, Encoding, ImageSettings, Resize
from shardstream.train.models.registry import MAX_IMAGE_SIZE
from shardstream.train.runs.model_check import check_model_file
from shardstream.train.runs.run_folder import RunFolder, open_run, write_beside, write_json

_TOLERANCE = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """Metadata of a model: everything that prediction needs to know.

    Attributes:
        class_names: Class names in the order of the outputs.
        display_names: Names shown to people for each class, in the same order.
        image_size: Height and width of the input in pixels.
        resize: How images that are not square become square.
        stored_size: Height and width in pixels of the images of the dataset; None if each kept its own.
        encoding: Encoding of the stored images.
        quality: Quality of their JPEGs, 1 to 100.
        model: The name it was built by.
        dataset_fingerprint: Fingerprint of the training dataset.
        num_parameters: All parameters, including those not trained.
        precision: Dtype policy of the training; the files are float32.
        versions: Versions of the software that trained it.
        pretrained: Its initial weights: "name" of the package or file; for a package also "version", "sha256" of its
            file and "license", and "fine_tune", what was fine-tuned. None if trained from scratch.
        temperature: Calibration: divisor of the logits, included in the model file; 1 for none.
    """

    class_names: tuple[str, ...]
    display_names: tuple[str, ...]
    image_size: int
    resize: Resize
    stored_size: int | None
    encoding: Encoding
    quality: int
    model: str
    dataset_fingerprint: str
    num_parameters: int
    precision: str
    versions: Mapping[str, str]
    pretrained: Mapping[str, str] | None = None
    temperature: float = 1.0

    @property
    def stored(self) -> ImageSettings:
        """The image settings under which an image looks like the training images."""
        return ImageSettings(
            size=self.stored_size, resize=self.resize, encoding=self.encoding, quality=self.quality
        )

    def save(self, run_dir: Path) -> None:
        """Writes model.json into `run_dir`."""
        write_beside(RunFolder(run_dir).model_info, self.write)

    def write(self, path: Path) -> None:
        """Writes the file `path` itself."""
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def load(cls, run_dir: Path) -> "ModelInfo":
        """Reads model.json of the run folder `run_dir`, or next to the `.keras` file of that path.

        Raises:
            DatasetError: There is no run or no model in it, or the file is corrupt.
        """
        run = open_run(run_dir)
        run.check_has_model()
        path = run.model_info
        with parse_errors(path, "train again into another run folder"):
            return _model_info(path, json.loads(read_regular(path)))


def load_model(run_dir: Path) -> tuple[keras.Model, ModelInfo]:
    """Returns the best model of a run, or that of a `.keras` file, loaded in Keras's safe mode, and its model.json.

    The model maps RGB images [batch, image_size, image_size, 3], uint8 or float32 from 0 to 255, to probabilities
    float32 [batch, num_classes].

    Raises:
        DatasetError: There is no model, or it cannot be loaded safely.
    """
    info = ModelInfo.load(run_dir)
    path = open_run(run_dir).best_model
    if not path.is_file():
        raise DatasetError(
            f"{path}: no such file, though model.json is there; train again into another run folder"
        )
    check_model_file(path)
    try:
        model = cast(keras.Model, keras.saving.load_model(path, compile=False, safe_mode=True))
    # A corrupt or malicious file makes Keras raise any of ValueError, KeyError, TypeError, BadZipFile.
    except Exception as error:
        reason = str(error).strip().split("\n", 1)[0][:200]
        raise DatasetError(f"{path}: cannot be loaded in Keras's safe mode: {reason}") from error
    expected = (None, info.image_size, info.image_size, 3), (None, len(info.class_names))
    if (model.input_shape, model.output_shape) != expected or not _has_one_output(model):
        raise DatasetError(
            f"{path}: takes {model.input_shape} and gives {model.output_shape}, "
            f"but model.json says {expected[0]} and {expected[1]}"
        )
    return model, info


def _has_one_output(model: keras.Model) -> bool:
    """Whether a model returns a single tensor, not a dict."""
    return isinstance(model, keras.Sequential) or isinstance(model.output, keras.KerasTensor)


def check_probabilities(values: np.ndarray, *, num_classes: int, name: str) -> None:
    """Refuses model outputs that are not a probability for each class.

    Args:
        values: [num_images, num_outputs].
        num_classes: Expected number of outputs.
        name: Name of the model, for the error.

    Raises:
        DatasetError: They are logits, independent sigmoids, NaN, or of the wrong number.
    """
    is_shape = values.ndim == 2 and values.shape[1] == num_classes
    # Half precision is exact to a thousandth; NaN fails any comparison.
    if is_shape and (values > -_TOLERANCE).all() and (np.abs(values.sum(axis=1) - 1) < _TOLERANCE).all():
        return
    shown = ", ".join(f"{value:.3g}" for value in values.reshape(-1)[:4].tolist())
    raise DatasetError(
        f"{name}: gives {shown}{', ...' if values.size > 4 else ''} for an image, expected {num_classes} probabilities "
        "that add up to 1; its last layer has to be a softmax over the classes of model.json"
    )


class ModelWriter:
    """Writes the weights of a model in training as a float32 model that plain Keras can load.

    The trained model itself may compute in half precision, have synchronized batch normalization and live on several
    devices; and it has augmentation layers, which are active in Keras unless a caller says `training=False`. The
    `twin` has none of that and the same weights.
    """

    def __init__(self, twin: keras.Model) -> None:
        """Takes a model with the same weights, made in float32 and outside any strategy."""
        self.twin = twin

    def write(self, model: keras.Model, path: Path) -> None:
        """Writes a model with the weights of `model` to `path` atomically."""
        weights = model.get_weights()
        write_beside(path, lambda beside: self.save(weights, beside))

    def save(self, weights: Sequence[np.ndarray], path: Path) -> None:
        """Saves a model with `weights`, in Keras's order, at `path` itself."""
        self.twin.set_weights(list(weights))
        self.twin.save(path)


def _model_info(path: Path, content: Any) -> ModelInfo:
    fields = dataclasses.fields(ModelInfo)
    # Models of earlier versions had no others.
    needed = {field.name for field in fields if field.default is dataclasses.MISSING}
    found = set(content) if isinstance(content, dict) else set()
    if differing := (needed - found) | (found - {field.name for field in fields}):
        differing = ", ".join(sorted(differing))
        raise DatasetError(
            f"{path}: keys missing or unknown: {differing}; train again into another run folder"
        )
    checks = {
        "class_names": _is_list_of_str(content["class_names"]) and len(content["class_names"]) > 0,
        "display_names": _is_list_of_str(content["display_names"])
        and len(content["display_names"]) == len(content["class_names"]),
        "image_size": _is_size(content["image_size"]),
        "resize": content["resize"] in get_args(Resize),
        "stored_size": content["stored_size"] is None
        or _is_size(content["stored_size"], most=MAX_STORED_SIZE),
        "encoding": content["encoding"] in get_args(Encoding),
        "quality": type(content["quality"]) is int and 1 <= content["quality"] <= 100,
        "num_parameters": type(content["num_parameters"]) is int,
        "versions": isinstance(content["versions"], dict),
        "pretrained": _is_pretrained(content.get("pretrained")),
        "temperature": _is_temperature(content.get("temperature", 1.0)),
        **{key: isinstance(content[key], str) for key in ("model", "dataset_fingerprint", "precision")},
    }
    for key, is_sound in checks.items():
        if not is_sound:
            found_value = json.dumps(content[key], ensure_ascii=False)[:80]
            raise DatasetError(
                f"{path}: {key}: unusable value {found_value}; train again into another run folder"
            )
    lists: dict[str, Any] = {key: tuple(content[key]) for key in ("class_names", "display_names")}
    return ModelInfo(**{**content, **lists})


def _is_pretrained(value: object) -> bool:
    return value is None or (
        isinstance(value, dict) and "name" in value and all(isinstance(text, str) for text in value.values())
    )


def _is_temperature(value: object) -> bool:
    return type(value) is float and 0 < value < float("inf")


def _is_size(value: object, *, most: int = MAX_IMAGE_SIZE) -> bool:
    return type(value) is int and 1 <= value <= most


def _is_list_of_str(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
