"""TensorFlow Datasets: a GeneratorBasedBuilder that yields paths, as in its guide; one process."""

from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf
import tensorflow_datasets as tfds
from way import arguments, list_photos, measure


class Photos(tfds.core.GeneratorBasedBuilder):
    """Category folders as a dataset."""

    VERSION = tfds.core.Version("1.0.0")
    photos: Path
    decode: bool

    def _info(self) -> tfds.core.DatasetInfo:
        names = sorted(path.name for path in self.photos.iterdir())
        features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=names)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[str, dict[str, object]]]:
        for path, label in list_photos(self.photos):
            if self.decode:
                tf.io.decode_jpeg(tf.io.read_file(path), channels=3)  # Raises if the photo is corrupt.
            yield path, {"image": path, "label": label}


def main() -> None:
    """Runs the program."""
    parser = arguments(str(__doc__))
    parser.add_argument(
        "--decode", action="store_true", help="decode each photo first, to see that it is whole"
    )
    options = parser.parse_args()
    Photos.photos, Photos.decode = options.photos, options.decode
    builder = Photos(data_dir=str(options.out))
    tf.zeros(1)  # TensorFlow's own start.
    measure(builder.download_and_prepare, "tensorflow", "tensorflow-datasets")


if __name__ == "__main__":
    main()
