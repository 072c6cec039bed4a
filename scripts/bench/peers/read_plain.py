"""A plain pipeline as in TensorFlow's guide: originals from our shards, decoded and resized with AUTOTUNE."""

import argparse

from epochs import BATCH, SIZE, arguments, measure_epochs

from shardstream.train.startup import start_tensorflow


def main() -> None:
    """Runs the program."""
    parser = arguments(str(__doc__))
    parser.add_argument("--antialias", action=argparse.BooleanOptionalAction, required=True)
    parser.add_argument(
        "--ratio", type=int, default=1, help="how much smaller the decoder makes JPEGs: 1, 2, 4 or 8"
    )
    options = parser.parse_args()
    start_tensorflow()
    import tensorflow as tf

    features = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}

    def decode(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = tf.io.parse_single_example(record, features)
        picture = tf.io.decode_jpeg(example["image"], channels=3, ratio=options.ratio)
        resized = tf.image.resize(picture, [SIZE, SIZE], antialias=options.antialias)
        return tf.cast(resized, tf.uint8), example["label"]

    shards = sorted(map(str, (options.inputs / "data").glob("*tfrecord*")))
    dataset = tf.data.TFRecordDataset(shards).shuffle(100)
    dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE)
    measure_epochs(lambda _: dataset, options.epochs, "tensorflow")


if __name__ == "__main__":
    main()
