"""Initial weights of a run: those of an earlier run, or of a file."""

from collections.abc import Sequence
from pathlib import Path

import keras

from shardstream.train.models.weights import load_weights
from shardstream.train.runs.model_check import check_weights_file
from shardstream.train.runs.run_folder import RunFolder
from shardstream.train.runs.saved_model import ModelInfo


def begin_with(model: keras.Model, weights: str, class_names: Sequence[str]) -> None:
    """Loads the weights named by `--weights` into a model that `build_model` made.

    The last layer is included if they come from an earlier run with the same classes, in any order.

    Args:
        model: The model; its name tells how it was built.
        weights: "imagenet", a run folder, whose best model is taken, or the path of a file.
        class_names: Class names of the model's outputs.

    Raises:
        ConfigError: The weights are not available.
        DatasetError: The file is corrupt, or belongs to another model.
    """
    path = Path(weights)
    if weights == "imagenet":
        load_weights(model, weights)
        return
    if path.is_dir():
        folder = RunFolder(path)
        folder.check_has_model()
        path = folder.best_model
    if path.is_file():
        check_weights_file(path)
    load_weights(model, str(path), class_order=_class_order(path, class_names))


def _class_order(path: Path, class_names: Sequence[str]) -> list[int] | None:
    """Returns the output in the file's model for each of these classes; None if it has other classes."""
    if path.suffix != ".keras" or not RunFolder(path.parent).model_info.is_file():
        return None
    theirs = ModelInfo.load(path.parent).class_names
    if sorted(theirs) != sorted(class_names):
        return None
    return [theirs.index(name) for name in class_names]
