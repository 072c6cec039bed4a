"""Look-alikes of a dataset that the real ingest made, with a copy planted in each way."""

import shutil

import numpy as np
import pytest
from PIL import Image

from shardstream.ingest.commands.build import build_dataset
from shardstream.ingest.commands.config import BuildConfig
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.pipeline.look_alikes import BURST, NEITHER
from shardstream.predict.findings import same_image
from shardstream.predict.findings.duplicates import find_duplicates, load_thumbnails
from shardstream.predict.findings.same_image import classify_pairs, num_compared
from shardstream.train.runs.saved_model import ModelInfo


def picture(seed):
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(noise).resize((96, 96), Image.Resampling.BICUBIC)


def on_background(seed, name):
    signs = np.random.default_rng([seed, len(name)]).choice([-14, 14], (8, 8))
    # A checkerboard in each of 64 cells: no low frequencies, which are all that the hash looks at.
    details = np.kron(signs, [[1, -1], [-1, 1]]).repeat(6, 0).repeat(6, 1)[..., np.newaxis]
    pixels = np.asarray(picture(300 + seed), np.int16) * 0.9 + 10 + details
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def info(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alike")
    for seed in range(40):
        for name in ("food", "exterior"):
            path = folder / "photos" / name / f"{seed:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(seed + 100 * (name == "exterior")).save(path)
    # The same pictures in other bytes: of one class, and of the other one.
    for seed in range(12):
        picture(seed).save(folder / "photos/food" / f"again{seed:02d}.jpg", quality=80)
    picture(30).save(folder / "photos/exterior" / "mislabelled.jpg", quality=80)
    # Other details on one background: alike to a perceptual hash.
    for seed in range(6):
        for name in ("first", "second"):
            on_background(seed, name).save(folder / "photos/food" / f"{name}{seed}.png")
    shutil.copy(folder / "photos/food/31.png", folder / "photos/exterior/conflict.png")
    names = ("food", "exterior")
    build_dataset(
        BuildConfig(
            images=folder / "photos",
            data=folder / "data",
            class_names=names,
            validation=0.5,
            image_size=32,
            workers=1,
        )
    )
    return DatasetInfo.load(folder / "data")


def test_copies_in_another_split_and_with_another_label_are_named(info):
    found = find_duplicates(info, "validation")
    named = {frozenset((pair.one.path, pair.other.path)) for pair in found.leaks}
    allowed = {frozenset((f"food/{seed:02d}.png", f"food/again{seed:02d}.jpg")) for seed in range(12)}
    # Each of the twelve falls into one split by its content: about half of the pairs are apart.
    assert 2 <= found.num_leaks == len(named) <= 11
    assert named < allowed
    repeated = {frozenset((pair.one.path, pair.other.path)) for pair in found.repeats}
    elsewhere = {
        frozenset((pair.one.path, pair.other.path)) for pair in find_duplicates(info, "train").repeats
    }
    # Each pair is named once: apart, or together on one side.
    assert found.num_repeats == len(repeated) > 0
    assert sorted(map(sorted, [*named, *repeated, *elsewhere])) == sorted(map(sorted, allowed))
    for pair in found.leaks:
        assert (pair.one.split, pair.other.split) == ("validation", "train")
    assert found.num_contradictions == 1
    (pair,) = found.contradictions
    assert {pair.one.path, pair.other.path} == {"food/30.png", "exterior/mislabelled.jpg"}
    assert {pair.one.class_name, pair.other.class_name} == {"food", "exterior"}
    assert found.num_conflicts == 2


def test_what_only_the_hashes_take_for_alike_is_not_listed(info):
    import pyarrow.parquet as pq

    from shardstream.ingest.pipeline.near_duplicates import find_pairs

    rows = pq.read_table(info.data_dir / "manifest.parquet", columns=["path", "perceptual_hash"]).to_pydict()
    pairs = find_pairs(np.array([number or 0 for number in rows["perceptual_hash"]], np.uint64))
    named = [{rows["path"][row] for row in pair} for pair in pairs.tolist()]
    alike = [f"food/first{i}.png" for i in range(6) if {f"food/first{i}.png", f"food/second{i}.png"} in named]
    assert alike  # Else this shows nothing.
    for split in ("train", "validation"):
        found = find_duplicates(info, split)
        listed = {one.path for pair in [*found.leaks, *found.repeats] for one in (pair.one, pair.other)}
        assert not listed & set(alike)


@pytest.fixture
def model(info):
    return ModelInfo(
        class_names=info.class_names,
        display_names=info.display_names,
        image_size=32,
        resize="stretch",
        stored_size=None,
        encoding="jpeg",
        quality=95,
        model="m",
        dataset_fingerprint="",
        num_parameters=1,
        precision="float32",
        versions={},
    )


def test_their_pictures_are_those_of_their_records(info, model):
    found = find_duplicates(info, "validation")
    pictures = load_thumbnails(info, found.copies, model=model)
    assert set(pictures) == set(found.copies)
    for copy, shown in pictures.items():
        seed = int("".join(filter(str.isdigit, copy.path)) or "30")
        expected = np.asarray(picture(seed).resize((32, 32), Image.Resampling.BOX)).astype(float)
        assert np.abs(shown.pixels() - expected).mean() < 25, copy.path


def test_a_dataset_whose_other_shards_are_elsewhere_names_them_without_pictures(info, model, tmp_path):
    shutil.copytree(info.data_dir, tmp_path / "data")
    moved = DatasetInfo.load(tmp_path / "data")
    for shard in moved.split("train").shards:
        (tmp_path / "data" / shard.filename).unlink()
    found = find_duplicates(moved, "validation")
    pictures = load_thumbnails(moved, found.copies, model=model)
    assert {copy.split for copy in pictures} == {"validation"}


def test_without_a_manifest_nothing_is_known(trial, caplog):
    assert find_duplicates(trial.info, "validation") is None
    assert "manifest.parquet: cannot be read" in caplog.text


def test_of_more_pairs_than_are_compared_no_list_goes_without(info, monkeypatch):
    whole = find_duplicates(info, "validation")
    monkeypatch.setattr(same_image, "_MAX_PAIRS", 3)
    found = find_duplicates(info, "validation")
    assert whole.num_unknown == 0 < found.num_unknown
    assert (len(found.contradictions), len(found.leaks), len(found.repeats)) == (1, 1, 1)
    lists = {"many": np.zeros((9, 2)), "one": np.zeros((1, 2)), "none": np.zeros((0, 2))}
    assert num_compared(lists) == {"none": 0, "one": 1, "many": 2}


def test_whether_names_that_follow_one_another_mean_anything_shows_in_all_lists_together(monkeypatch, trial):
    monkeypatch.setattr(same_image, "_load_thumbnails", lambda *_: dict.fromkeys(range(20)))
    monkeypatch.setattr(same_image, "correlation", lambda *_: 0.8)
    following, others = np.array([[0, 1], [2, 3]]), np.array([[4, 14], [5, 15], [6, 16]])

    def kinds(**pairs_of):
        found = classify_pairs(trial.info, [], np.array([]), "IMG_{:04d}.jpg".format, pairs_of)
        return {name: kinds.tolist() for name, kinds in found.items()}

    assert kinds(leaks=following) == {"leaks": [BURST, BURST]}
    assert kinds(leaks=others, repeats=following) == {"leaks": [NEITHER] * 3, "repeats": [NEITHER] * 2}
