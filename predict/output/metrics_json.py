"""The content of metrics.json, and the provenance of a report."""

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.predict.findings.summary import Findings
from shardstream.predict.inference.selection import Selection
from shardstream.predict.metrics.calibration import Calibration
from shardstream.predict.metrics.classification import Summary
from shardstream.predict.metrics.comparison import Comparison, Cost, Part
from shardstream.predict.metrics.gate import Check
from shardstream.predict.metrics.intervals import Estimate
from shardstream.predict.metrics.paired_tests import mcnemar
from shardstream.train.config import gradient_defaults
from shardstream.train.distributed.strategy import versions
from shardstream.train.models.registry import AUTO, BACKBONES
from shardstream.train.runs.run_folder import open_run
from shardstream.train.runs.saved_model import ModelInfo

_MATRIX_CLASSES = 200


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Provenance of a report, for its head and foot.

    Attributes:
        dataset: The name of the dataset.
        data_dir: The dataset folder.
        fingerprint: Fingerprint of the dataset.
        split: Name of the split.
        run: Name of the run folder.
        model: Name of the model.
        model_info: Metadata of the model.
        model_sha256: SHA-256 of the model file.
        versions: Software versions at prediction.
        command: The command line.
        created: Time in ISO 8601.
        training_config: The text of the run's config.json; empty if there is none.
    """

    dataset: str
    data_dir: str
    fingerprint: str
    split: str
    run: str
    model: str
    model_info: ModelInfo
    model_sha256: str
    versions: Mapping[str, str]
    command: str
    created: str
    training_config: str


def make_metrics(
    summary: Summary,
    calibration: Calibration,
    info: DatasetInfo,
    selection: Selection,
    model: ModelInfo,
    *,
    model_sha256: str,
    findings: Findings,
    checks: Sequence[Check],
    command: str,
) -> dict[str, Any]:
    """Returns the content of metrics.json; classes by name, undefined metrics as null."""
    names = info.class_names
    confusion = summary.confusion
    return {
        "num_examples": summary.num_examples,
        "num_right": summary.num_right,
        **_figure("accuracy", summary.accuracy),
        **_figure("top5_accuracy", summary.top5_accuracy),
        **_figure("balanced_accuracy", summary.balanced_accuracy),
        **_figure("macro_f1", summary.macro_f1),
        **_figure("mean_loss", summary.mean_loss),
        **_figure("brier", summary.brier),
        **_figure("ece", calibration.ece),
        "ece_uncorrected": calibration.ece_uncorrected,
        "mean_confidence": calibration.confidence,
        "classes": [
            {
                "class_name": names[figures.label],
                "display_name": info.display_names[figures.label],
                "support": figures.support,
                "num_predicted": figures.num_predicted,
                "num_right": figures.num_right,
                **_figure("precision", figures.precision),
                **_figure("recall", figures.recall),
                **_figure("f1", figures.f1),
            }
            for figures in summary.classes
        ],
        # With more classes it is mostly zeros; all non-zero cells are in confused_pairs and num_right.
        "confusion_matrix": confusion.dense(range(len(names))).tolist()
        if len(names) <= _MATRIX_CLASSES
        else None,
        "confused_pairs": [
            dataclasses.asdict(pair) | {"actual": names[pair.actual], "predicted": names[pair.predicted]}
            for pair in confusion.confused_pairs()
        ],
        "limits": [
            {
                "what": check.what,
                "option": check.option,
                "limit": check.limit,
                "num_right": check.num_right,
                "num_examples": check.num_examples,
                "value": check.share,
                "kept": check.is_kept,
                "clear": check.is_clear,
            }
            for check in checks
        ],
        "reliability": [dataclasses.asdict(one) for one in calibration.bins],
        "coverage": [dataclasses.asdict(one) for one in calibration.coverage],
        "slices": [dataclasses.asdict(one) | {"stands_out": one.stands_out} for one in findings.slices],
        "untested_classes": [names[label] for label in summary.untested],
        "num_label_issues": len(findings.labels.issues),
        "label_issues_source": findings.labels.source,
        "label_issues_num_checked": findings.labels.num_checked,
        "label_issues_expected_precision": findings.labels.expected_precision,
        "num_odd_pictures": len(findings.odd_pictures),
        "num_leaks": None if findings.duplicates is None else findings.duplicates.num_leaks,
        "num_copies": None if findings.duplicates is None else findings.duplicates.num_copies,
        "num_contradictions": None if findings.duplicates is None else findings.duplicates.num_contradictions,
        "split": selection.split,
        "num_available": selection.num_available,
        "selection": selection.description,
        "dataset": info.name,
        "dataset_fingerprint": info.fingerprint,
        "model": model.model,
        "model_sha256": model_sha256,
        "model_dataset_fingerprint": model.dataset_fingerprint,
        "versions": versions(),
        "command": command,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def comparison_metrics(
    comparisons: Sequence[Comparison], cost: Cost, class_names: Sequence[str]
) -> dict[str, Any]:
    """Returns the part of metrics.json about other models on the same records; empty without other models."""
    if not comparisons:
        return {}
    return {
        "cost": dataclasses.asdict(cost),
        "comparisons": [
            {
                "name": one.name,
                **_figure("accuracy", one.accuracy),
                **_part(one.whole),
                # Not meaningful with different weights; p_value is that of the weighted difference then.
                "mcnemar_p_value": None
                if one.is_weighted
                else mcnemar(one.whole.num_fixes, one.whole.num_regressions),
                "p_value": one.p_value,
                "agreement": one.agreement,
                "cohen_kappa": one.kappa,
                "cost": dataclasses.asdict(one.cost),
                "classes": [
                    {"class_name": name, **_part(part)}
                    for name, part in zip(class_names, one.classes, strict=True)
                    if part is not None
                ],
            }
            for one in comparisons
        ],
    }


def _part(part: Part) -> dict[str, Any]:
    return {
        "num_examples": part.num_examples,
        "num_right": part.num_right,
        "num_right_other": part.num_right_other,
        "num_fixes": part.num_fixes,
        "num_regressions": part.num_regressions,
        **_figure("accuracy_difference", part.difference),
        "difference_stands_out": part.stands_out,
    }


def _figure(name: str, figure: Estimate | None) -> dict[str, Any]:
    return {
        name: None if figure is None else figure.value,
        f"{name}_interval_95": None if figure is None else [figure.low, figure.high],
    }


def make_provenance(
    run_dir: Path,
    info: DatasetInfo,
    split_name: str,
    model: ModelInfo,
    metrics: Mapping[str, Any],
    *,
    data_dir: Path,
) -> Provenance:
    """Returns the provenance of a report."""
    run = open_run(run_dir)
    return Provenance(
        dataset=info.name,
        data_dir=str(data_dir),
        fingerprint=info.fingerprint,
        split=split_name,
        run=run_dir.resolve().name,
        model=model.model,
        model_info=model,
        model_sha256=metrics["model_sha256"],
        versions=metrics["versions"],
        command=metrics["command"],
        created=metrics["created"],
        training_config=_training_config(run.config, model),
    )


def _training_config(path: Path, model: ModelInfo) -> str:
    if not path.is_file():
        return ""
    text = path.read_text(encoding="utf-8", errors="backslashreplace")
    return options_used(text, model=model.model, image_size=model.image_size)


def options_used(config: str, *, model: str, image_size: int) -> str:
    """Returns the text of a config.json; for a linear head, without the options of training by epochs.

    With `auto` these are of the other candidate, and so is the image size.

    Args:
        config: Text of the file.
        model: Model of best.keras.
        image_size: Height and width of its input in pixels.
    """
    try:
        options = json.loads(config)
    except (ValueError, RecursionError):
        return config
    if not isinstance(options, dict):
        return config
    is_of_other = options.get("model") == AUTO and model in BACKBONES
    if options.get("epochs") != 0 and not is_of_other:
        return config
    unused = {*gradient_defaults(), "head_epochs", "fine_tune_learning_rate", "steps_per_epoch"}
    used = {k: v for k, v in options.items() if k not in unused} | {"image_size": image_size}
    return json.dumps(used, indent=1, ensure_ascii=False)
