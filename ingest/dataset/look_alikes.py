"""Near-duplicates in different splits: the result of the search, stored with the dataset."""

import dataclasses

from shardstream.ingest.common.json_reader import JsonNode

PathPair = tuple[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LookAlikes:
    """Pairs of near-duplicate images in different splits.

    Attributes:
        num_candidates: Number of pairs whose perceptual hashes differ in few bits. Most of them are not near-duplicates
            if all images show similar objects in front of the same background.
        num_compared: How many of these were compared by thumbnail; at most some thousand, evenly sampled.
        num_same: Among the compared pairs, copies of one image in another size, format or quality.
        num_bursts: Among the compared pairs, similar images with consecutive numbers in their names (one scene).
        same: The paths of the first copies.
        bursts: The paths of the first burst pairs.
    """

    num_candidates: int
    num_compared: int
    num_same: int
    num_bursts: int
    same: tuple[PathPair, ...]
    bursts: tuple[PathPair, ...]

    @classmethod
    def from_json(cls, node: JsonNode) -> "LookAlikes":
        """Parses the output of `dataclasses.asdict`. Raises a DatasetError if it is invalid."""
        return cls(
            num_candidates=node.get("num_candidates", int),
            num_compared=node.get("num_compared", int),
            num_same=node.get("num_same", int),
            num_bursts=node.get("num_bursts", int),
            same=_pairs(node, "same"),
            bursts=_pairs(node, "bursts"),
        )


def _pairs(node: JsonNode, key: str) -> tuple[PathPair, ...]:
    pairs = node.child(key)
    count = len(node.get(key, list))
    return tuple((pairs.child(i).get(0, str), pairs.child(i).get(1, str)) for i in range(count))
