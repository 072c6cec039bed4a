"""Plants wrong labels in datasets, and counts how many of the labels that a report lists are wrong.

    python -m scripts.bench.label_check DATA [DATA ...] [--fractions 0.02 0.05] [--blurs 0 2 4] [--seeds 1 2]

The labels of a fraction of all images are changed, and the label check of a report uses the features of all images.
Noise of some standard deviations on the features makes a weaker classifier: the accuracy is a column. A label that was
incorrect originally counts as correct here, so the precision is a lower limit.
"""

import dataclasses
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

from shardstream.train.startup import start_tensorflow

if TYPE_CHECKING:
    from shardstream.predict.inference.backbone_features import DatasetFeatures


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Plants wrong labels in datasets, and counts how many of the labels that a report lists are wrong."""

    data: tyro.conf.Positional[tuple[Path, ...]]
    """Dataset folders."""
    fractions: tuple[float, ...] = (0.02, 0.05)
    """Of the labels, how many are planted."""
    blurs: tuple[float, ...] = (0, 2, 4)
    """Noise added to each feature, in its standard deviations."""
    seeds: tuple[int, ...] = (1,)


def main(config: CheckConfig) -> None:
    """Prints a row of a table for each trial, and one JSON line."""
    start_tensorflow()
    logging.basicConfig(level=logging.INFO)
    from shardstream.predict.inference.backbone_features import load_features
    from shardstream.train.data.folder import load_info

    rows = []
    print("| dataset | blur | planted | accuracy | listed | planted ones listed | expected |")
    print("|---|---|---|---|---|---|---|")
    for path in config.data:
        info = load_info(path)
        features = load_features(info)
        if features is None:
            continue
        for blur in config.blurs:
            for fraction in config.fractions:
                for seed in config.seeds:
                    row = {"dataset": path.name, "blur": blur} | try_one(info, features, blur, fraction, seed)
                    rows.append(row)
                    print(f"| {' | '.join(map(str, row.values()))} |", flush=True)
    print(json.dumps(rows))


def try_one(
    info: Any, features: "DatasetFeatures", blur: float, fraction: float, seed: int
) -> dict[str, object]:
    """Returns the listed labels after planting errors."""
    from shardstream.predict.findings.label_check import check_by_features
    from shardstream.predict.inference.backbone_features import DatasetFeatures

    rng = np.random.default_rng(seed)
    planted: dict[str, np.ndarray] = {}
    splits: dict[str, Any] = {}
    for name, split in features.splits.items():
        wrong = rng.random(len(split.labels)) < fraction
        moved = (split.labels + rng.integers(1, info.num_classes, len(wrong))) % info.num_classes
        noise = rng.normal(0, blur, split.values.shape) * split.values.astype(np.float32).std(axis=0)
        splits[name] = SimpleNamespace(
            values=(split.values + noise).astype(np.float16),
            labels=np.where(wrong, moved, split.labels).astype(np.int32),
            names=split.names,
        )
        planted[name] = wrong
    found = check_by_features(info, DatasetFeatures(splits))
    if found is None:
        raise ValueError(f"{info.name}: too many images and classes, or too few")
    check, predictions = found
    truth = np.concatenate([split.labels for split in features.splits.values()])
    hits = [bool(planted[issue.entry.split][issue.entry.position]) for issue in check.issues]
    return {
        "planted": sum(int(wrong.sum()) for wrong in planted.values()),
        "accuracy": round(float((predictions.predicted == truth).mean()), 3),
        "listed": len(hits),
        "hits": sum(hits),
        "expected": None if check.expected_precision is None else round(check.expected_precision, 2),
    }


if __name__ == "__main__":
    main(tyro.cli(CheckConfig))
