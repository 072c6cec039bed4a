"""Near-duplicate images: pairs and groups of perceptual hashes with a small Hamming distance.

If two 64-bit hashes differ in at most six bits and are cut into nine pieces, at least three pieces are equal. Sorting
by each choice of three pieces therefore brings every such pair close together: 84 integer sorts instead of comparing
all pairs. The idea is from Norouzi, Punjani and Fleet 2012, "Fast search in Hamming space with multi-index hashing",
and Manku, Jain and Das Sarma 2007, "Detecting near-duplicates for web crawling".
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from shardstream.ingest.dataset.split_hash import SPLIT_NAMES

# Copies of 200 photos at a half or a quarter of the size, in gray, blurred or as a JPEG of quality 10 differ from the
# originals in at most 4 bits. Of copies cropped by 2 %, 20 % brighter or with text across, 99, 98 and 89 % differ in at
# most 6 bits; 94, 90 and 76 % in at most 4. Among all pairs of 740 photos, ten are true duplicates, which differ in at
# most 2 bits; all others differ in 11 or more. A larger threshold would give too many false positives, whose number
# grows with the square of the number of images: of 62 million pairs of crops of a sixteenth of these photos, often sky
# or wall, 17 differ in at most 4 bits, 44 in at most 6, 121 in at most 8.
MAX_DISTANCE = 6

Pairs = npt.NDArray[np.uint32]
_Hashes = npt.NDArray[np.uint64]
_Field = tuple[int, int]

_HASH_BITS = 64
_ALL_BITS = np.uint64((1 << _HASH_BITS) - 1)
# A perceptual hash has a bit set for each coefficient above the median: about half of them, and at least 27 in each of
# 740 photos. If most coefficients are 0, as in flat images, stripes and gradients, few bits are set, and all such
# images would look alike.
_MIN_BITS = 24
# Three of nine pieces are a key of 21 bits: 0.5 random neighbors per row at a million rows, 50 at a hundred million.
_EQUAL_PIECES = 3
# Neighboring bits are neighboring frequencies, and correlated in images with little detail. With interleaved bits the
# most common key of such images is half as common.
_SPREAD = [(bit * 11 % _HASH_BITS, 1) for bit in range(_HASH_BITS)]
_BLOCK_ROWS = 1 << 14  # 128 KiB stay in the cache: three times as fast as whole arrays.
# Bounds the work in crowds; random neighbors stay far below this at a hundred million rows.
_MAX_NEIGHBOURS = 256
_MAX_NEAR_IN_BLOCK = 16 * _BLOCK_ROWS
_MIN_PAIRS_OF_CROWDS = 1 << 20


def find_pairs(hashes: _Hashes, max_distance: int = MAX_DISTANCE) -> Pairs:
    """Returns the pairs of rows whose images look alike.

    A million rows take 1.4 s on one core, ten million 28 s. Peak memory is 40 bytes per row in addition to `hashes`,
    and 90 if most images look like several others.

    Rows with equal hashes are each paired with the first of them: k rows make k - 1 pairs, and the first row represents
    them in pairs with other hashes. A hash with fewer than 24 bits set is in no pair: its image has too little detail,
    or there is no image.

    All pairs of differing hashes are found unless they form crowds, as the frames of a video do. If more than 256
    hashes share a key, or a row has more than 16 near ones throughout a block of 16,384, not all of these are compared;
    and if there are more pairs than rows, and more than a million, groups with more pairs than rows keep only the pairs
    that link them. So each returned pair is correct, and groups are complete except for a few hashes at the edge of a
    crowd.

    Args:
        hashes: Hashes from `process.perceptual_hash`, uint64 [rows]; 0 for a row to ignore.
        max_distance: The maximum number of bits in which two hashes may differ.

    Returns:
        uint32 [pairs, 2], each pair once, sorted, the smaller row first.
    """
    rows = np.flatnonzero(np.bitwise_count(hashes) >= _MIN_BITS).astype(np.uint32)
    values = _rearrange(hashes[rows], _SPREAD)
    order = np.argsort(values)
    rows, values = rows[order], values[order]
    del order
    starts = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1]))[: len(values)])
    firsts = np.minimum.reduceat(rows, starts) if len(starts) else rows
    first_of_row = np.repeat(firsts, np.diff(starts, append=len(rows)))
    others = first_of_row != rows
    same = _pack(first_of_row[others], rows[others])
    distinct = values[starts]
    del rows, values, starts, first_of_row, others
    a, b = _unpack(_pairs_of_distinct(distinct, max_distance)).T
    pairs = np.concatenate((same, _pack(np.minimum(firsts[a], firsts[b]), np.maximum(firsts[a], firsts[b]))))
    pairs.sort()
    return _unpack(pairs)


def group_rows(num_rows: int, pairs: Pairs) -> npt.NDArray[np.uint32]:
    """Returns the smallest row of each row's connected component, uint32 [num_rows]."""
    return _link(num_rows, pairs)[0]


def straddling(pairs: Pairs, splits: npt.NDArray[np.uint8]) -> Pairs:
    """Returns those of `pairs` whose rows lie in different splits: leaks.

    Args:
        pairs: uint32 [pairs, 2].
        splits: For each row an index into SPLIT_NAMES, or NO_SPLIT.
    """
    a, b = splits[pairs].T
    return pairs[(a != b) & (np.maximum(a, b) < len(SPLIT_NAMES))]


def _link(num_rows: int, pairs: Pairs) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Returns the smallest row of each row's component, and the indices of pairs that form a spanning forest.

    Each round attaches every tree to the smallest of its neighboring trees: 15 rounds for a chain of a million rows in
    random order.
    """
    roots = np.arange(num_rows, dtype=np.uint32)
    best = np.empty(num_rows, np.uint64)
    numbers = np.arange(len(pairs), dtype=np.uint32)
    links = []
    while len(numbers):
        ends = roots[pairs[numbers]]
        apart = ends[:, 0] != ends[:, 1]
        numbers, ends = numbers[apart], ends[apart]
        lower, upper = np.minimum(*ends.T), np.maximum(*ends.T)
        # With an arbitrary smaller tree, a row with many neighbors would link them at one per round.
        offers = _pack(lower, numbers)
        best[upper] = _ALL_BITS
        np.minimum.at(best, upper, offers)
        wins = best[upper] == offers
        roots[upper[wins]] = lower[wins]
        links.append(numbers[wins])
        while ((above := roots[roots]) != roots).any():
            roots = above
    return roots, np.concatenate(links) if links else numbers


def _pairs_of_distinct(values: _Hashes, max_distance: int) -> npt.NDArray[np.uint64]:
    """Returns packed pairs of indices into `values`, which are sorted and distinct: each pair once, in no order."""
    crowds = np.arange(len(values), dtype=np.uint32)
    limit = max(len(values), _MIN_PAIRS_OF_CROWDS)
    found, num_found = [np.empty(0, np.uint64)], 0
    for hashes, partners in _neighbors(values, max_distance):
        a, b = np.searchsorted(values, hashes), np.searchsorted(values, partners)
        new = crowds[a] != crowds[b]  # A pair inside a crowd links nothing new.
        found.append(_pack(np.minimum(a, b)[new], np.maximum(a, b)[new]))
        num_found += len(found[-1])
        if num_found > limit:
            found = [np.concatenate(found)]
            found[0], crowds = _thin_out(found[0], crowds)
            num_found = len(found[0])
    return np.concatenate(found)


def _neighbors(values: _Hashes, max_distance: int) -> Iterator[tuple[_Hashes, _Hashes]]:
    """Yields hashes and their near partners in parallel arrays: each pair once, from the first sort that finds it."""
    num_pieces = max_distance + _EQUAL_PIECES
    bounds = [_HASH_BITS * number // num_pieces for number in range(num_pieces + 1)]
    pieces = [(low, high - low) for low, high in itertools.pairwise(bounds)]
    for key in itertools.combinations(range(num_pieces), _EQUAL_PIECES):
        order = [*key, *(number for number in range(num_pieces) if number not in key)]
        table = _rearrange(values, [pieces[number] for number in order])
        table.sort()
        offsets = _HASH_BITS - np.cumsum([pieces[number][1] for number in order])
        places = {n: (offset, pieces[n][1]) for n, offset in zip(order, offsets.tolist(), strict=True)}
        # Had one of these pieces been equal too, an earlier sort would have found the pair.
        earlier = [_mask(places[number]) for number in range(key[-1]) if number not in key]
        back = [places[number] for number in reversed(range(num_pieces))]
        for a, b in _near_in_table(table, max_distance, key_offset=places[key[-1]][0], differing=earlier):
            yield _rearrange(a, back), _rearrange(b, back)


def _near_in_table(
    table: _Hashes, max_distance: int, *, key_offset: int, differing: Sequence[np.uint64]
) -> Iterator[tuple[_Hashes, _Hashes]]:
    """Yields values of the sorted `table`, and partners with the same key that differ from them in few bits.

    Args:
        table: Sorted values, uint64 [rows].
        max_distance: Maximum distance in bits.
        key_offset: The lowest bit of the key.
        differing: Masks; the values must differ within each of them.
    """
    rest = np.uint64((1 << key_offset) - 1)
    for start in range(0, len(table), _BLOCK_ROWS):
        found, num_near = [], 0
        for shift in range(1, _MAX_NEIGHBOURS + 1):
            right = table[start + shift : start + shift + _BLOCK_ROWS]
            left = table[start : start + len(right)]
            bits = left ^ right
            if bits.min(initial=_ALL_BITS) > rest or num_near > _MAX_NEAR_IN_BLOCK:
                break  # No key of this block has more rows, or the block is one crowd.
            near = np.flatnonzero(np.bitwise_count(bits) <= max_distance)
            num_near += len(near)
            bits = bits[near]
            wanted = bits <= rest
            for mask in differing:
                wanted &= (bits & mask) != 0
            near = near[wanted]
            found.append((left[near], right[near]))
        if found:
            yield np.concatenate([left for left, _ in found]), np.concatenate([right for _, right in found])


def _rearrange(values: _Hashes, fields: Sequence[_Field]) -> _Hashes:
    """Returns the values with permuted bits: `fields` says where each is taken from, highest first."""
    result = np.zeros_like(values)
    for start in range(0, len(values), _BLOCK_ROWS):
        block, out = values[start : start + _BLOCK_ROWS], result[start : start + _BLOCK_ROWS]
        for offset, width in fields:
            out <<= np.uint64(width)
            out |= block >> np.uint64(offset) & np.uint64((1 << width) - 1)
    return result


def _thin_out(
    pairs: npt.NDArray[np.uint64], crowds: npt.NDArray[np.uint32]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
    """Returns `pairs` without redundant pairs of crowds, and for each row its crowd, or itself if it is in none.

    A crowd is a group with more pairs than rows; once a crowd, it remains one.
    """
    ends = _unpack(pairs)
    roots, links = _link(len(crowds), ends)
    group_of_pair = roots[ends[:, 0]]
    del ends
    surplus = np.zeros(len(crowds), np.int64)
    np.add.at(surplus, group_of_pair, 1)
    np.subtract.at(surplus, roots, 1)
    alone = np.arange(len(crowds), dtype=np.uint32)
    surplus[roots[crowds != alone]] = 1
    needed = surplus[group_of_pair] <= 0
    needed[links] = True
    return pairs[needed], np.where(surplus[roots] > 0, roots, alone)


def _mask(field: _Field) -> np.uint64:
    offset, width = field
    return np.uint64(((1 << width) - 1) << offset)


def _pack(a: npt.NDArray[np.integer], b: npt.NDArray[np.integer]) -> npt.NDArray[np.uint64]:
    return a.astype(np.uint64) << np.uint64(32) | b.astype(np.uint64)


def _unpack(pairs: npt.NDArray[np.uint64]) -> Pairs:
    ends = np.empty((len(pairs), 2), np.uint32)
    ends[:, 0] = pairs >> np.uint64(32)
    ends[:, 1] = pairs & np.uint64(0xFFFFFFFF)
    return ends
