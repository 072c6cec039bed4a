"""Trains a new head on the frozen layers of a finished run, for other classes.

    shardstream-train DATA --run runs/first
    python -m scripts.examples.transfer runs/first OTHER_DATA --model other.keras

Each image passes the frozen layers once; all epochs of the head use the cached features.
"""

# Keras has incomplete type hints.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# pyright: reportFunctionMemberAccess=false, reportCallIssue=false, reportOperatorIssue=false

import argparse
from pathlib import Path

import keras
import numpy as np

import shardstream


def main() -> None:
    """Computes features, trains the head and saves both as one model."""
    parser = argparse.ArgumentParser(description="Trains a new head on the frozen layers of a finished run.")
    parser.add_argument("run", type=Path, help="a run folder of shardstream-train")
    parser.add_argument("data", type=Path, help="a dataset folder")
    parser.add_argument("--model", type=Path, required=True, help="the file to write, .keras")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    keras.utils.set_random_seed(args.seed)

    trained = keras.saving.load_model(args.run / "best.keras", compile=False)
    # The last layer is specific to the classes of the run.
    backbone = keras.Model(trained.inputs, trained.layers[-1].input)
    backbone.trainable = False
    image_size = trained.input_shape[1]

    data = shardstream.load_dataset(args.data)
    train, validation = (
        features(backbone, data, split, args, image_size) for split in ("train", "validation")
    )
    head = keras.Sequential(
        [
            keras.Input(backbone.output_shape[1:]),
            keras.layers.Dense(len(data.class_names), activation="softmax", dtype="float32"),
        ]
    )
    head.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    head.fit(*train, validation_data=validation, batch_size=args.batch_size, epochs=args.epochs, verbose=0)

    model = keras.Model(backbone.inputs, head(backbone.outputs[0]))
    model.save(args.model)
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    batches = data.eval_batches("validation", batch_size=args.batch_size, image_size=image_size)
    print(f"validation accuracy {model.evaluate(batches, return_dict=True, verbose=0)['accuracy']:.3f}")


def features(
    backbone: keras.Model, data: shardstream.Dataset, split: str, args: argparse.Namespace, image_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the features and labels of a split, each image once."""
    batches = data.eval_batches(split, batch_size=args.batch_size, image_size=image_size)
    rows = [(backbone(images, training=False).numpy(), labels.numpy()) for images, labels, _ in batches]
    return np.concatenate([row for row, _ in rows]), np.concatenate([labels for _, labels in rows])


if __name__ == "__main__":
    main()
