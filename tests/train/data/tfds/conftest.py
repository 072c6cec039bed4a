import contextlib
import io
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from shardstream.ingest.dataset.records import unframe
from shardstream.train.data.tfds_folder import TfdsInfo, open_tfds_index

WriteTfds = Callable[..., Path]


def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20 + number % 7, 30), (number % 256,) * 3).save(file, "JPEG")
    return file.getvalue()


def write(
    root: Path,
    splits: dict[str, list[dict[str, Any]]],
    *,
    features: dict[str, Any] | None = None,
    shape: tuple[int | None, ...] = (None, None, 3),
    supervised_keys: tuple[str, str] | None = None,
    num_shards: int = 1,
    in_order: bool = False,
) -> Path:
    """Writes a dataset with stock TensorFlow Datasets: an image, a label, and what `features` has besides."""
    import tensorflow_datasets as tfds

    class Birds(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("2.0.1")

        def _info(self):
            pair = {
                "photo": tfds.features.Image(shape=shape),
                "kind": tfds.features.ClassLabel(names=["cat/dog", "<b>&", "새"]),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(pair | (features or {})),
                supervised_keys=supervised_keys,
                disable_shuffling=in_order,
            )

        def _split_generators(self, dl_manager):
            return {name: enumerate(split) for name, split in splits.items()}

        def _generate_examples(self):
            raise NotImplementedError

    tfds.disable_progress_bar()
    builder = Birds(data_dir=str(root))
    config = tfds.download.DownloadConfig(num_shards=num_shards)
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_config=config)
    return Path(str(builder.data_path))


@pytest.fixture(scope="session")
def write_tfds() -> WriteTfds:
    return write


@pytest.fixture(scope="session")
def tfds_examples() -> Callable[..., list[dict[str, Any]]]:
    """Examples of the numbers from `start` to `stop`, all different; `others` are the same in all of them."""

    def examples(start: int, stop: int, **others: Any) -> list[dict[str, Any]]:
        return [{"photo": io.BytesIO(jpeg(n)), "kind": n % 3, **others} for n in range(start, stop)]

    return examples


@pytest.fixture(scope="session")
def shared_tfds(tmp_path_factory, tfds_examples) -> Path:
    """Other names of the features than ours, more of them than are needed, and no split called validation."""
    import tensorflow_datasets as tfds

    others = {
        "boxes": tfds.features.Sequence(tfds.features.BBoxFeature()),
        "image/filename": tfds.features.Text(),
    }
    rows = tfds_examples(0, 60)
    for number, row in enumerate(rows):
        row["boxes"] = [tfds.features.BBox(0.0, 0.0, 1.0, 1.0)] * (number % 3)
        row["image/filename"] = f"{number}.jpg"
    splits = {"train": rows[:40], "test": rows[40:]}
    return write(tmp_path_factory.mktemp("tfds"), splits, features=others, num_shards=3)


@pytest.fixture
def tfds_folder(shared_tfds, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(shared_tfds, tmp_path / "data"))


@pytest.fixture(scope="session")
def payloads() -> Callable[[TfdsInfo, str], list[bytes]]:
    """Reads the records of a split by the rows of its index, and compares their checksums."""

    def read(info: TfdsInfo, split: str) -> list[bytes]:
        index = open_tfds_index(info, split)
        found = []
        row = 0
        for shard in index.shards:
            content = (info.data_dir / shard.filename).read_bytes()
            offsets = [*index.records["offset"][row : row + shard.num_examples].tolist(), len(content)]
            for start, end in itertools.pairwise(offsets):
                record = content[start:end]
                assert int.from_bytes(record[-4:], "little") == index.records["checksum"][len(found)]
                found.append(unframe(record))
            row += shard.num_examples
        return found if index.selected is None else [found[row] for row in index.selected]

    return read
