"""Trains your own Keras model with `model.fit`. Kill it at any moment and start it again: it resumes where it was.

python -m scripts.examples.fit DATA --run runs/mine
"""

# Keras has incomplete type hints.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# pyright: reportFunctionMemberAccess=false, reportCallIssue=false, reportOperatorIssue=false

import argparse
import logging
from pathlib import Path

import keras

import shardstream


def main() -> None:
    """Trains, evaluates and saves the model."""
    parser = argparse.ArgumentParser(
        description="Trains a Keras model with model.fit; resumes if it was killed."
    )
    parser.add_argument("data", type=Path, help="a dataset folder")
    parser.add_argument("--run", type=Path, required=True, help="folder of the checkpoints and the model")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    keras.utils.set_random_seed(args.seed)

    data = shardstream.load_dataset(args.data)
    steps_per_epoch = data.steps_per_epoch(args.batch_size)
    validation = data.eval_batches("validation", batch_size=args.batch_size)
    model = build_model(data)
    resume = shardstream.ResumeCallback(
        args.run / "resume", data, batch_size=args.batch_size, seed=args.seed, save_every=500
    )
    print(f"starts with step {resume.start_step} of {args.epochs * steps_per_epoch}", flush=True)
    model.fit(
        resume.batches(),
        initial_epoch=resume.initial_epoch,
        epochs=args.epochs,
        steps_per_epoch=steps_per_epoch,
        validation_data=validation,
        callbacks=[resume],
        shuffle=False,  # The batches are shuffled; Keras warns otherwise.
        verbose=2,
    )
    model.save(args.run / "model.keras")
    figures = model.evaluate(validation, return_dict=True, verbose=0)
    print(f"validation accuracy {figures['accuracy']:.3f}")


def build_model(data: shardstream.Dataset) -> keras.Model:
    """Returns a small compiled CNN that augments on the device."""
    model = keras.Sequential(
        [
            keras.Input((data.image_size, data.image_size, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomTranslation(0.1, 0.1),
            keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu"),
            keras.layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(len(data.class_names), activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


if __name__ == "__main__":
    main()
