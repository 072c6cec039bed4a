"""A tiny dataset in our format, and a model whose answers are known: it names the strongest color."""

import dataclasses
import hashlib
import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shardstream.ingest.dataset.index import FILENAME as INDEX
from shardstream.ingest.dataset.index import scan_shards
from shardstream.ingest.dataset.metadata import DatasetInfo, ShardInfo, SplitInfo, SplitRule
from shardstream.ingest.dataset.records import encode_entries, encode_example, frame
from shardstream.ingest.images.settings import ImageSettings, ProcessingSettings
from shardstream.predict.findings.duplicates import Duplicates, ManifestEntry
from shardstream.predict.findings.gallery import Shown, choose_rows
from shardstream.predict.findings.label_check import LabelCheck, LabelIssue
from shardstream.predict.findings.label_issues import find_label_issues
from shardstream.predict.findings.odd_images import find_odd_pictures
from shardstream.predict.findings.summary import Findings
from shardstream.predict.inference.prediction import Prediction, Record
from shardstream.predict.inference.prediction_table import PredictionTable, top_k
from shardstream.predict.inference.selection import Sampling, select_all
from shardstream.predict.inference.thumbnails import Picture
from shardstream.predict.metrics.calibration import calibrate
from shardstream.predict.metrics.classification import summarize
from shardstream.predict.metrics.comparison import Cost
from shardstream.predict.metrics.slices import find_slices
from shardstream.predict.output.fonts import LabelFont
from shardstream.predict.output.metrics_json import Provenance
from shardstream.predict.output.result import Report
from shardstream.train.runs.saved_model import ModelInfo

SIZE = 8
_PICTURES = 300  # More records than this get no bytes of their own in a report.
CLASS_NAMES = ("food", "interior", "exterior")
DISPLAY_NAMES = ("음식", "실내", "실외")
# The model takes red for food, green for interior and blue for exterior.
COLORS = ((230, 20, 30), (25, 220, 20), (20, 30, 240))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Photo:
    """A record to be: what it is, and what the model will take it for."""

    label: int
    looks_like: int
    path: str
    encoding: str = "PNG"

    def encoded(self) -> bytes:
        """The stored bytes; no two photos have the same."""
        seed = int.from_bytes(hashlib.sha256(self.path.encode()).digest()[:4], "big")
        noise = np.random.default_rng(seed).integers(0, 15, (SIZE, SIZE, 3))
        pixels = (np.asarray(COLORS[self.looks_like]) + noise).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, self.encoding, quality=95)
        return buffer.getvalue()

    def features(self) -> dict[str, bytes | int]:
        """What the Example holds."""
        return {
            "image": self.encoded(),
            "label": self.label,
            "image/filename": self.path.encode(),
            "image/sha256": hashlib.sha256(self.path.encode()).hexdigest().encode(),
            "image/height": SIZE,
            "image/width": SIZE,
            "image/source_height": 480,
            "image/source_width": 640,
        }


def write_dataset(
    folder: Path,
    splits: dict[str, Sequence[Sequence[Photo]]],
    *,
    class_names: Sequence[str] = CLASS_NAMES,
    display_names: Sequence[str] = DISPLAY_NAMES,
) -> DatasetInfo:
    """Writes shards of photos and their metadata."""
    folder.mkdir(parents=True)
    info = DatasetInfo(
        data_dir=folder,
        name="photos",
        class_names=tuple(class_names),
        display_names=tuple(display_names),
        version="1.0.0",
        judging=ProcessingSettings(
            image=ImageSettings(size=SIZE, resize="stretch", encoding="png", quality=95),
            check="full",
            max_pixels=1000,
        ),
        split_rule=SplitRule(
            seed=1, fractions={"validation": 0.5}, keep_together="duplicates", stratify=False
        ),
        shard_bytes=1 << 20,
        splits={
            name: SplitInfo(
                name=name,
                shards=tuple(
                    _write_shard(folder / f"photos-{name}.tfrecord-{i:05d}-of-{len(shards):05d}", photos)
                    for i, photos in enumerate(shards)
                ),
                class_counts=tuple(
                    sum(photo.label == label for photos in shards for photo in photos)
                    for label in range(len(class_names))
                ),
            )
            for name, shards in splits.items()
        },
        verdicts={"ok": sum(len(photos) for shards in splits.values() for photos in shards)},
        manifest_sha256="",
    )
    info.save(folder)
    np.save(folder / INDEX, scan_shards(info, info.shards.values()))
    return info


def _write_shard(path: Path, photos: Sequence[Photo]) -> ShardInfo:
    frames = [frame(encode_example(encode_entries(photo.features()))) for photo in photos]
    content = b"".join(frames)
    path.write_bytes(content)
    return ShardInfo(
        filename=path.name,
        num_examples=len(photos),
        num_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def write_run(
    folder: Path,
    info: DatasetInfo,
    *,
    class_names: Sequence[str] | None = None,
    kernel: np.ndarray | None = None,
    image_size: int = SIZE,
) -> Path:
    """Writes a run folder with a model that names the strongest of red, green and blue."""
    import keras

    from shardstream.train.runs.run_folder import RunFolder

    num_classes = len(class_names or info.class_names)
    model = keras.Sequential(
        [
            keras.Input((image_size, image_size, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(num_classes, activation="softmax", use_bias=False),
        ]
    )
    model.set_weights([4 * np.eye(3, num_classes, dtype=np.float32) if kernel is None else kernel])
    folder.mkdir(parents=True)
    model.save(RunFolder(folder).best_model)
    RunFolder(folder).config.write_text('{"epochs": 3, "note": "</pre><script>alert(1)</script>"}\n')
    ModelInfo(
        class_names=tuple(class_names or info.class_names),
        display_names=tuple(class_names or info.display_names),
        image_size=image_size,
        resize=info.image.resize,
        stored_size=info.image.size,
        encoding=info.image.encoding,
        quality=info.image.quality,
        model="colors",
        dataset_fingerprint=info.fingerprint,
        num_parameters=model.count_params(),
        precision="float32",
        versions={"keras": keras.__version__},
    ).save(folder)
    return folder


def _validation_photos() -> list[list[Photo]]:
    """81 photos in three shards: every tenth looks like the next class; one in four is a JPEG."""
    photos = [
        Photo(
            label=i % 3,
            looks_like=(i + (i % 10 == 0)) % 3,
            path=f"{CLASS_NAMES[i % 3]}/{i:03d}.jpg",
            encoding="JPEG" if i % 4 == 1 else "PNG",
        )
        for i in range(81)
    ]
    return [photos[:40], photos[40:70], photos[70:]]


@dataclasses.dataclass(frozen=True)
class Trial:
    """A dataset with a run, and what is in its validation split."""

    info: DatasetInfo
    run: Path
    photos: Sequence[Photo]

    @property
    def data(self) -> Path:
        """The dataset folder."""
        return self.info.data_dir


@pytest.fixture(scope="session")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """The usual dataset and run. Tests write their reports elsewhere."""
    folder = tmp_path_factory.mktemp("trial")
    shards = _validation_photos()
    train = [[Photo(label=0, looks_like=0, path="food/t.jpg")]]
    info = write_dataset(folder / "data", {"train": train, "validation": shards})
    return Trial(info, write_run(folder / "run", info), [photo for photos in shards for photo in photos])


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetInfo, list[int]]:
    """A dataset made by the real ingest, and the labels of its validation split in file order."""
    from shardstream.ingest.commands.build import build_dataset
    from shardstream.ingest.commands.config import BuildConfig
    from shardstream.train.data.dataset import Dataset

    folder = tmp_path_factory.mktemp("built")
    for i in range(60):
        photo = Photo(label=i % 3, looks_like=i % 3, path=f"{CLASS_NAMES[i % 3]}/{'ab'[i % 2]}/{i:03d}.png")
        (folder / "photos" / photo.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "photos" / photo.path).write_bytes(photo.encoded())
    build_dataset(
        BuildConfig(
            images=folder / "photos",
            data=folder / "data",
            class_names=CLASS_NAMES,
            validation=0.5,
            image_size=SIZE,
            workers=1,
        )
    )
    info = DatasetInfo.load(folder / "data")
    labels = [labels.numpy() for _, labels, _ in Dataset(info).eval_batches("validation", batch_size=8)]
    return info, np.concatenate(labels).tolist()


@pytest.fixture
def make_trial(tmp_path: Path) -> Callable[..., Trial]:
    """Makes a dataset of one shard with a run for it."""

    def make(photos: Sequence[Photo], **names: Sequence[str]) -> Trial:
        info = write_dataset(tmp_path / "data", {"validation": [photos]}, **names)
        return Trial(info, write_run(tmp_path / "run", info), photos)

    return make


@pytest.fixture
def copy_dataset(tmp_path: Path) -> Callable[[DatasetInfo], DatasetInfo]:
    """Copies a dataset, for tests that damage it."""

    def copy(info: DatasetInfo) -> DatasetInfo:
        shutil.copytree(info.data_dir, tmp_path / "copy")
        return DatasetInfo.load(tmp_path / "copy")

    return copy


def make_record(path: str = "a.jpg", *, position: int = 0, label: int = 0, **values: Any) -> Record:
    """Makes a record; its bytes are no picture unless they are given."""
    usual = {
        "shard": "s",
        "source_sha256": "",
        "source_height": 480,
        "source_width": 640,
        "encoded": b"",
        "media_type": None,
    }
    return Record(source_path=path, position=position, label=label, **usual | values)


def make_prediction(record: Record, probabilities: Sequence[float]) -> Prediction:
    """Makes what a model with these probabilities says of a record."""
    shares = np.array([probabilities], np.float32)
    top = top_k(shares)[0]
    return Prediction(
        record=record,
        top_labels=top,
        top_probabilities=shares[0, top],
        actual_probability=float(shares[0, record.label]),
    )


def make_outcomes(
    labels: Sequence[int], probabilities: Sequence[Sequence[float]] | np.ndarray, **columns: Any
) -> PredictionTable:
    """Makes what a model said of records; what is not given is the same for all of them."""
    actual, shares = np.asarray(labels, np.int32), np.asarray(probabilities, np.float32)
    count = len(actual)
    top = top_k(shares)
    usual = {
        "positions": np.arange(count),
        "labels": actual,
        "top_labels": top,
        "top_probabilities": np.take_along_axis(shares, top, axis=1),
        "actual_probabilities": shares[np.arange(count), actual],
        "brier": np.square(shares - np.eye(shares.shape[1])[actual]).sum(axis=1),
        "heights": np.full(count, 480),
        "widths": np.full(count, 640),
        "brightness": np.full(count, 128, np.float32),
        "sharpness": np.full(count, 20, np.float32),
        "folders": np.zeros(count, np.int32),
        "folder_names": ("",),
    }
    return PredictionTable(**usual | columns)


def make_report(
    predictions: Sequence[tuple[str, int, Sequence[float]]],
    *,
    class_names: Sequence[str],
    display_names: Sequence[str] | None = None,
    gallery_size: int = 200,
    name: str = "photos",
    duplicates: Duplicates | None = None,
    sampling: Sampling = "uniform",
    **columns: Any,
) -> Report:
    """Makes a report of predictions, given as (path, label, probabilities)."""
    records = [
        make_record(
            path,
            position=i,
            label=label,
            encoded=Photo(label=0, looks_like=i % 3, path=str(i)).encoded() if i < _PICTURES else b"",
            media_type="image/png",
        )
        for i, (path, label, _) in enumerate(predictions)
    ]
    shares = np.array([shares for *_, shares in predictions], np.float32)
    outcomes = make_outcomes([label for _, label, _ in predictions], shares, **columns)
    weights = np.ones(len(records), np.float32)
    found = find_label_issues(outcomes, num_classes=len(class_names))
    entries = {
        row: ManifestEntry(
            path=records[row].source_path,
            class_name=class_names[records[row].label],
            split="validation",
            position=row,
        )
        for row in found.rows.tolist()
    }
    findings = Findings(
        slices=find_slices(outcomes, weights),
        labels=LabelCheck(
            source="predictions",
            num_checked=len(outcomes),
            issues=[
                LabelIssue(
                    entry=entries[row],
                    label=int(outcomes.labels[row]),
                    suggested=int(outcomes.predicted[row]),
                    probability=float(outcomes.probabilities[row]),
                    wrong_label_probability=chance,
                )
                for row, chance in zip(found.rows.tolist(), found.probabilities.tolist(), strict=True)
            ],
            errors=found.errors,
        ),
        label_rows={entry: row for row, entry in entries.items()},
        odd_pictures=find_odd_pictures(outcomes),
        content_is_known=False,
        source_paths={row: record.source_path for row, record in enumerate(records)},
        duplicates=duplicates,
        thumbnails={},
    )
    rows = choose_rows(outcomes, sampling, gallery_size, seed=1, named=findings.named_rows)
    model_info = ModelInfo(
        class_names=tuple(class_names),
        display_names=tuple(display_names or class_names),
        image_size=SIZE,
        resize="stretch",
        stored_size=None,
        encoding="jpeg",
        quality=95,
        model=name,
        dataset_fingerprint="other",
        num_parameters=1234,
        precision="float32",
        versions={"keras": "3"},
    )
    return Report(
        sampling=sampling,
        selection=select_all("validation", len(records)),
        outcomes=outcomes,
        summary=summarize(outcomes, weights, num_classes=len(class_names)),
        findings=findings,
        calibration=calibrate(outcomes, weights),
        rows=rows,
        pictures=[
            Shown(
                make_prediction(records[row], shares[row].tolist()),
                Picture("image/png", records[row].encoded, is_record=True),
            )
            for row in rows
        ],
        class_names=class_names,
        display_names=display_names or class_names,
        lettering=LabelFont(class_names, Path("font")),
        checks=[],
        cost=Cost(num_parameters=1234, file_bytes=5_000_000, ms_per_picture=1.5),
        comparisons=[],
        changed={},
        metrics={},
        provenance=Provenance(
            dataset=name,
            data_dir=name,
            fingerprint="this",
            split=name,
            run=name,
            model=name,
            model_info=model_info,
            model_sha256="ab",
            versions={"python": "3"},
            command=name,
            created="2026-01-01T00:00:00+00:00",
            training_config=f'{{"name": "{name}"}}',
        ),
    )


# Tests cannot import from here, so what they call comes as fixtures.


@pytest.fixture(scope="session", name="make_record")
def _make_record() -> Callable[..., Record]:
    return make_record


@pytest.fixture(scope="session", name="make_prediction")
def _make_prediction() -> Callable[..., Prediction]:
    return make_prediction


@pytest.fixture(scope="session", name="make_outcomes")
def _make_outcomes() -> Callable[..., PredictionTable]:
    return make_outcomes


@pytest.fixture(scope="session", name="photo")
def _photo() -> type[Photo]:
    return Photo


@pytest.fixture(scope="session", name="write_dataset")
def _write_dataset() -> Callable[..., DatasetInfo]:
    return write_dataset


@pytest.fixture(scope="session", name="write_run")
def _write_run() -> Callable[..., Path]:
    return write_run


@pytest.fixture(scope="session", name="make_report")
def _make_report() -> Callable[..., Report]:
    return make_report
