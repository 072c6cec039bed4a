"""Classes without images in a split: they cannot be learned, or are not evaluated."""

from collections.abc import Iterable, Sequence

from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.split_hash import TRAIN

_MAX_NAMED = 5


def missing_class_notes(info: DatasetInfo, split_names: Iterable[str] | None = None) -> list[str]:
    """Returns a sentence for each split, or each of `split_names`, that lacks images of a class."""
    notes = []
    for name in info.splits if split_names is None else split_names:
        counts = info.split(name).class_counts
        missing = [cls for cls, count in zip(info.class_names, counts, strict=True) if not count]
        if missing:
            notes.append(
                f"{_classes(missing)} in {name}, and {_consequence(name, missing)}; {_remedy(info, name)}"
            )
    return notes


def _classes(missing: Sequence[str]) -> str:
    named = ", ".join(missing[:_MAX_NAMED])
    more = f", and {len(missing) - _MAX_NAMED:,} more" if len(missing) > _MAX_NAMED else ""
    if len(missing) == 1:
        return f"the class {named} has no image"
    return f"{len(missing):,} classes have no image ({named}{more})"


def _consequence(split: str, missing: Sequence[str]) -> str:
    they = "it" if len(missing) == 1 else "they"
    if split == TRAIN:
        return f"no model can learn {they if they == 'it' else 'them'}"
    return f"{they} {'is' if they == 'it' else 'are'} never tested there"


def _remedy(info: DatasetInfo, split: str) -> str:
    if info.layout.has_given_splits:
        return f"the splits are kept as given: add images of that kind to {split}"
    if info.split_rule.stratify or not info.split_rule.fractions:
        return "add images"
    return "`shardstream-ingest build --stratify` gives each class its fraction of each split"
