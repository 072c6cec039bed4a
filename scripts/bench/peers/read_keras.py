"""Keras: `image_dataset_from_directory`, as in the notebook that this project started from."""

from epochs import BATCH, SIZE, arguments, measure_epochs

from shardstream.train.startup import start_tensorflow


def main() -> None:
    """Runs the program."""
    parser = arguments(str(__doc__))
    parser.add_argument("--photos", choices=("originals", "files"), required=True)
    options = parser.parse_args()
    start_tensorflow()
    import keras

    dataset = keras.utils.image_dataset_from_directory(
        options.inputs / options.photos, image_size=(SIZE, SIZE), batch_size=BATCH, seed=123, verbose=False
    )
    measure_epochs(lambda _: dataset, options.epochs, "keras", "tensorflow")


if __name__ == "__main__":
    main()
