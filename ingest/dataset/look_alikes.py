"""Images in different splits that show the same: what a build found, kept with the dataset."""

import dataclasses

from shardstream.ingest.common.json_reader import JsonNode

PathPair = tuple[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LookAlikes:
    """Pairs of images that lie in different splits and yet are alike.

    Attributes:
        num_candidates: Pairs whose perceptual hashes differ in few bits. Most of them are not alike where all images
            show one kind of thing in front of one background.
        num_compared: How many of these were compared pixel by pixel; at most some thousand, evenly chosen.
        num_same: Of those compared, pairs of one image: copies in another size, format or quality.
        num_bursts: Of those compared, pairs that resemble each other and follow one another by the numbers in their
            names: shots of one scene.
        same: The paths of the first of these pairs.
        bursts: The paths of the first of these pairs.
    """

    num_candidates: int
    num_compared: int
    num_same: int
    num_bursts: int
    same: tuple[PathPair, ...]
    bursts: tuple[PathPair, ...]

    @classmethod
    def from_json(cls, node: JsonNode) -> "LookAlikes":
        """Reads what `dataclasses.asdict` gave. Raises a DatasetError if it is anything else."""
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
