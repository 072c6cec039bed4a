import re

import numpy as np
import pytest

from shardstream.ingest.dataset.layout import CLASS_FOLDERS, Layout
from shardstream.ingest.dataset.metadata import SplitRule
from shardstream.ingest.dataset.source_state import FileState
from shardstream.ingest.pipeline.catalog import Catalog
from shardstream.ingest.pipeline.listing import Listing
from shardstream.ingest.pipeline.series import BLOCKS_OF_TEN, SHARED_ID, series_notes

RULE = SplitRule(
    seed=1, fractions={"validation": 0.2, "test": 0.0}, keep_together="duplicates", stratify=False
)


def make_catalog(tmp_path, paths, hashes):
    listing = Listing(tmp_path, ("a", "b"))
    for path in paths:
        listing.append(path.encode(), int(path.startswith("b")), FileState(1, 1, 1, 1))
    catalog = Catalog(listing)
    catalog.verdicts[:] = catalog.judged[:] = 0
    catalog.hashes[:], catalog.has_hash[:] = hashes, True
    catalog.splits[:] = np.arange(len(paths)) % 5 == 0  # Every fifth is held out.
    return catalog


def random_hashes(count):
    return np.random.default_rng(1).integers(1, 1 << 63, count, np.uint64)


def series_hashes(count, length):
    """Hashes of which `length` in a row differ in a few bits."""
    rng = np.random.default_rng(2)
    scenes = np.repeat(random_hashes(-(-count // length)), length)[:count]
    return scenes ^ (np.uint64(1) << rng.integers(0, 64, count).astype(np.uint64))


NUMBERED = [f"{name}/IMG_{number:04d}.jpg" for name in "ab" for number in range(60)]


def test_numbers_that_count_on_are_a_series_where_their_images_are_alike(tmp_path):
    (note,) = series_notes(make_catalog(tmp_path, NUMBERED, series_hashes(120, 10)), RULE, CLASS_FOLDERS)
    assert note.startswith("24 of 24 held-out images follow a training image by the number in their names")
    assert f"--keep-together '{BLOCKS_OF_TEN}'" in note
    assert re.search(BLOCKS_OF_TEN, "a/IMG_0012.jpg")[1] == "a/IMG_001"


def test_numbers_alone_are_no_series(tmp_path):
    assert series_notes(make_catalog(tmp_path, NUMBERED, random_hashes(120)), RULE, CLASS_FOLDERS) == []


def test_letters_by_one_hand_are_no_series(tmp_path):
    # All images of a class are as near to each other as neighbors are.
    alike = np.where(np.arange(120) < 60, 3, 5).astype(np.uint64) << np.uint64(20)
    assert series_notes(make_catalog(tmp_path, NUMBERED, alike), RULE, CLASS_FOLDERS) == []


@pytest.mark.parametrize(
    ("paths", "example"),
    [
        ([f"{'ab'[i % 2]}/{i // 3:05d}_{i % 3}.png" for i in range(120)], "00000_0.png"),  # Patients.
        ([f"{'ab'[i % 2]}/person{i // 3}_scan_{i % 3}.png" for i in range(120)], "person"),
        (
            [f"{'ab'[i % 2]}/{i // 4}_{room}.jpg" for i in range(120) for room in ("bath", "bed")],
            "0_b",
        ),  # Houses.
    ],
)
def test_ids_that_several_files_share(tmp_path, paths, example):
    (note,) = series_notes(
        make_catalog(tmp_path, sorted(paths), random_hashes(len(paths))), RULE, CLASS_FOLDERS
    )
    assert "share an id in their names with training images" in note
    assert example in note
    assert f"--keep-together '{SHARED_ID}'" in note


def test_nothing_is_said_of_splits_that_somebody_has_thought_of(tmp_path):
    catalog = make_catalog(tmp_path, NUMBERED, series_hashes(120, 10))
    assert series_notes(catalog, RULE, Layout(splits_from_folders=True)) == []
    grouped = SplitRule(seed=1, fractions={}, keep_together="/(\\d)", stratify=False)
    assert series_notes(catalog, grouped, CLASS_FOLDERS) == []
