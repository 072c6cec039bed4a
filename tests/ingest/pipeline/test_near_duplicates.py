"""Pictures that look alike: every pair that is near, none that is not, and no crowd that would stop it."""

import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shardstream.ingest.images.perceptual_hash import hash_rgb
from shardstream.ingest.pipeline.near_duplicates import MAX_DISTANCE, find_pairs, group_rows, straddling

ROOMS = Path(__file__).resolve().parents[4] / "shared/data/rooms3"
SEED = st.integers(0, 2**32 - 1)


def random_hashes(rng, count):
    """Returns `count` hashes with half of their bits set."""
    bits = np.zeros((count, 64), np.uint8)
    bits[:, :32] = 1
    return np.packbits(rng.permuted(bits, axis=1), axis=1).view(">u8").ravel().astype(np.uint64)


def moved(rng, hashes, times):
    """Returns `hashes` with pairs of bits swapped, up to `times` in each, which changes up to two bits a time."""
    for _ in range(times):
        a, b = rng.integers(0, 64, (2, len(hashes)), np.uint64)
        differ = (hashes >> a ^ hashes >> b) & np.uint64(1)
        hashes = hashes ^ (differ << a | differ << b)
    return hashes


def all_pairs(hashes, max_distance):
    """Compares each hash with each other, and ties equal ones to the first of them."""
    firsts, pairs = {}, set()
    for row, value in enumerate(hashes.tolist()):
        if value.bit_count() >= 24 and firsts.setdefault(value, row) != row:
            pairs.add((firsts[value], row))
    for (a, i), (b, j) in itertools.combinations(firsts.items(), 2):
        if (a ^ b).bit_count() <= max_distance:
            pairs.add((i, j))
    return sorted(pairs)


def as_tuples(pairs):
    assert pairs.dtype == np.uint32
    assert pairs.shape[1:] == (2,)
    return list(map(tuple, pairs.tolist()))


@settings(deadline=None)
@given(SEED, st.integers(1, 60), st.integers(1, 8), st.integers(0, 9), st.integers(0, 10))
def test_the_pairs_are_those_that_comparing_all_finds(seed, num_rows, num_pictures, times, max_distance):
    rng = np.random.default_rng(seed)
    pictures = random_hashes(rng, num_pictures)[rng.integers(0, num_pictures, num_rows)]
    hashes = moved(rng, pictures, times)
    hashes[rng.random(num_rows) < 0.1] &= np.uint64(rng.integers(2**64, dtype=np.uint64))  # Little detail.
    hashes[rng.random(num_rows) < 0.1] = 0
    assert as_tuples(find_pairs(hashes, max_distance)) == all_pairs(hashes, max_distance)


def test_the_pairs_are_found_among_many_rows():
    rng = np.random.default_rng(0)
    hashes = random_hashes(rng, 100_000)
    hashes[50_000:] = moved(rng, hashes[:50_000], 5)
    distances = np.bitwise_count(hashes[:50_000] ^ hashes[50_000:])
    assert np.bincount(distances)[[2, 4, 6, 8, 10]].min() > 500
    expected = [(row, 50_000 + row) for row in np.flatnonzero(distances <= MAX_DISTANCE).tolist()]
    assert as_tuples(find_pairs(hashes)) == expected


@settings(deadline=None, max_examples=30)
@given(SEED)
def test_the_groups_do_not_depend_on_the_order(seed):
    rng = np.random.default_rng(seed)
    hashes = moved(rng, random_hashes(rng, 10)[rng.integers(0, 10, 50)], 3)
    order = rng.permutation(50)
    groups = group_rows(50, find_pairs(hashes))
    shuffled = group_rows(50, find_pairs(hashes[order]))
    assert {frozenset(np.flatnonzero(groups == group)) for group in groups} == {
        frozenset(order[shuffled == group]) for group in shuffled
    }


@pytest.mark.parametrize("hashes", [[], [0], [0x5555555555555555], [0, 0], [1 << 63] * 9])
def test_nothing_is_near_nothing(hashes):
    assert as_tuples(find_pairs(np.array(hashes, np.uint64))) == []


@pytest.mark.parametrize("shape", [(90, 120), (300, 300), (97, 131), (375, 500), (513, 217)])
def test_pictures_without_detail_are_not_alike(shape):
    height, width = shape
    y, x = np.mgrid[:height, :width]
    drawn = [
        *(np.full(shape, gray) for gray in (0, 1, 60, 128, 255)),
        255 * x // width,
        100 + 50 * x // width,
        255 - 255 * y // height,
        100 + 50 * y // height,
        255 * (x < width // 2),
        100 + 50 * (y < height // 3),
        255 * ((x + y) % 2),
    ]
    hashes = [hash_rgb(np.stack([gray] * 3, axis=-1).astype(np.uint8)) for gray in drawn]
    assert as_tuples(find_pairs(np.array(hashes * 2, np.uint64))) == []


def test_many_equal_hashes_are_tied_to_the_first_of_them():
    hashes = random_hashes(np.random.default_rng(0), 1000)
    hashes = np.concatenate([hashes, np.full(300_000, hashes[7])])
    assert as_tuples(find_pairs(hashes)) == [(7, row) for row in range(1000, 301_000)]


def test_crowds_keep_the_pairs_that_link_them():
    rng = np.random.default_rng(0)
    crowds = [np.unique(moved(rng, np.repeat(center, 40_000), 5)) for center in random_hashes(rng, 2)]
    others = moved(rng, np.tile(random_hashes(rng, 200), 3), 1)
    hashes = np.concatenate([*crowds, others])
    pairs = find_pairs(hashes)
    assert len(pairs) < 1 << 20  # Of a hundred million that are near.
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    distances = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]])
    assert distances.max() <= MAX_DISTANCE
    sizes = np.bincount(group_rows(len(hashes), pairs))
    assert sorted(sizes)[-2:] >= sorted(0.99 * len(crowd) for crowd in crowds)
    first = sum(map(len, crowds))
    assert as_tuples(pairs[pairs[:, 1] >= first] - np.uint32(first)) == all_pairs(others, MAX_DISTANCE)


@pytest.mark.parametrize("share_of_equal", [0, 0.5, 1])
def test_memory_is_64_bytes_a_row(share_of_equal):
    hashes = random_hashes(np.random.default_rng(0), 300_000)
    hashes[: int(len(hashes) * share_of_equal)] = hashes[0]
    tracemalloc.start()
    find_pairs(hashes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= 64 * len(hashes)


def naive_groups(num_rows, pairs):
    groups = [{row} for row in range(num_rows)]
    for a, b in pairs:
        if groups[a] is not groups[b]:
            groups[a] |= groups[b]
            for row in groups[b]:
                groups[row] = groups[a]
    return [min(group) for group in groups]


@given(st.data(), st.integers(1, 30))
def test_groups_are_what_pairs_link(data, num_rows):
    row = st.integers(0, num_rows - 1)
    pairs = data.draw(st.lists(st.tuples(row, row), max_size=30))
    groups = group_rows(num_rows, np.array(pairs, np.uint32).reshape(-1, 2))
    assert groups.dtype == np.uint32
    assert groups.tolist() == naive_groups(num_rows, pairs)


@pytest.mark.parametrize("shape", ["chain", "shuffled chain", "around the first", "around the last"])
def test_many_rows_become_one_group(shape):
    rows = np.arange(100_000, dtype=np.uint32)
    if shape == "shuffled chain":
        rows = np.random.default_rng(0).permutation(rows)
    one = {"around the first": 0 * rows, "around the last": 0 * rows + rows[-1]}.get(shape, np.roll(rows, 1))
    assert not group_rows(len(rows), np.stack([one, rows], axis=1)).any()


def test_a_leak_is_a_pair_in_two_splits():
    train, validation, test, no_split = 0, 1, 2, 3
    splits = np.array([train, train, validation, test, no_split], np.uint8)
    pairs = np.array(list(itertools.combinations(range(5), 2)), np.uint32)
    assert as_tuples(straddling(pairs, splits)) == [(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert as_tuples(straddling(pairs[:0], splits)) == []


@pytest.mark.skipif(not ROOMS.is_dir(), reason="the collection of photos is not there")
def test_the_real_photos_that_are_one_picture_are_found_and_no_others():
    files = sorted(ROOMS.glob("*/*"))
    hashes = np.array([hash_rgb(np.asarray(Image.open(file).convert("RGB"))) for file in files])
    names = [file.stem for file in files]
    assert sorted((names[a], names[b]) for a, b in find_pairs(hashes)) == [  # As seen by eye.
        ("12_frontal", "32_frontal"),
        ("271_frontal", "305_frontal"),
        ("292_frontal", "293_frontal"),
        ("59_frontal", "72_frontal"),
        ("Upma_train_243", "Upma_train_85"),
        ("baji_test_351", "baji_train_509"),
        ("medu vada_train_275", "medu vada_train_32"),
        ("medu vada_train_84", "medu vada_validation_457"),
        ("samosa_test_455", "samosa_validation_395"),
        ("samosa_train_448", "samosa_validation_316"),
    ]
