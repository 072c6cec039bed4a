"""A trained model and its predictions for images."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.common.safe_files import parse_errors
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.predict.inference.prediction import RecordBatch
from shardstream.train.engine.features import BATCH_SIZE
from shardstream.train.models.inference import inference_function
from shardstream.train.runs.run_folder import open_run
from shardstream.train.runs.saved_model import ModelInfo, check_probabilities, load_model


class Predictor:
    """A model ready for inference."""

    def __init__(self, model: keras.Model, info: ModelInfo) -> None:
        self.info = info
        self._model = model  # The traced function does not keep the weights it reads alive.
        shape = [BATCH_SIZE, info.image_size, info.image_size, 3]
        # Called before tracing: a function without variables would be traced twice.
        self._probabilities = tf.function(inference_function(model), autograph=False).get_concrete_function(
            tf.TensorSpec(shape, tf.uint8)
        )

    def warm_up(self, name: str) -> None:
        """Compiles the model, called `name`, so that the first batch is as fast as the others.

        Raises:
            DatasetError: The output of the model is not a probability for each class.
        """
        size = self.info.image_size
        self.predict_images(np.zeros((1, size, size, 3), np.uint8), name)

    def predict(self, batch: RecordBatch) -> np.ndarray:
        """Returns float32 [len(batch.records), num_classes] probabilities; at most `BATCH_SIZE` records at a time.

        Raises:
            DatasetError: The output of the model is not a probability for each class.
        """
        return self.predict_images(batch.images, batch.records[0].id)

    def predict_images(self, images: np.ndarray, name: str) -> np.ndarray:
        """Returns float32 [len(images), num_classes] probabilities of at most `BATCH_SIZE` images.

        Args:
            images: uint8 [count, image_size, image_size, 3].
            name: Name of the first image, for the error.

        Raises:
            DatasetError: The output of the model is not a probability for each class.
        """
        size = len(images)
        if size < BATCH_SIZE:
            images = np.pad(images, [(0, BATCH_SIZE - size), (0, 0), (0, 0), (0, 0)])
        probabilities = np.asarray(self._probabilities(images), np.float32)[:size]
        check_probabilities(
            probabilities,
            num_classes=len(self.info.class_names),
            name=f"{name}: the model {self.info.model!r}",
        )
        return probabilities


def load_predictor(run_dir: Path) -> Predictor:
    """Loads the best model of a run.

    Raises:
        DatasetError: The run has no model, or one that would run code of its own.
    """
    model, info = load_model(run_dir)
    # A crafted model can hold values that Keras accepts and no layer can compute with.
    path = open_run(run_dir).best_model
    with parse_errors(path, "take a model that `shardstream-train` made"):
        predictor = Predictor(model, info)
        predictor.warm_up(str(path))
    return predictor


def check_same_classes(run_dir: Path, model: ModelInfo, data: DatasetInfo) -> None:
    """Refuses a model whose classes are not those of the dataset, in the same order."""
    if tuple(model.class_names) != tuple(data.class_names):
        raise DatasetError(
            f"{run_dir}: the model knows the classes {_listed(model.class_names)}, but {data.data_dir} has "
            f"{_listed(data.class_names)}; give a model and a dataset with the same classes in the same order"
        )


def _listed(class_names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, class_names[:20]))
    return shown if len(class_names) <= 20 else f"{shown} and {len(class_names) - 20} more"
