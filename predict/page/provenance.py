"""The provenance section of the page."""

from collections.abc import Iterator, Mapping
from typing import Any

from shardstream.predict.output.metrics_json import Provenance
from shardstream.predict.page.texts.languages import Texts
from shardstream.train.runs.saved_model import ModelInfo

_WEIGHTS_FACTS = ("trained_on", "license", "sha256")


def provenance_facts(provenance: Provenance, t: Texts) -> list[tuple[str, str]]:
    """Returns the provenance of a report as terms and values, in the language of `t`."""
    model = provenance.model_info
    same = model.dataset_fingerprint == provenance.fingerprint
    return [
        (t["provenance_command"], provenance.command),
        (t["provenance_created"], provenance.created),
        (t["provenance_dataset"], provenance.data_dir),
        (t["provenance_fingerprint"], provenance.fingerprint),
        (
            t["provenance_trained_on"],
            t["provenance_same"]
            if same
            else t["provenance_other"].format(fingerprint=model.dataset_fingerprint),
        ),
        (
            t["provenance_model"],
            t["provenance_model_facts"].format(
                model=model.model,
                parameters=f"{model.num_parameters:,}",
                precision=model.precision,
                size=model.image_size,
                resize=model.resize,
            ),
        ),
        *_pretrained(model, t),
        (t["provenance_model_sha256"], provenance.model_sha256),
        (t["provenance_versions"], _listed(provenance.versions)),
        (t["provenance_versions_training"], _listed(model.versions)),
    ]


def _pretrained(model: ModelInfo, t: Texts) -> Iterator[tuple[str, str]]:
    """Yields the origin of pretrained weights, if recorded in model.json."""
    if facts := model.pretrained:
        others = [t[f"weights_{key}"].format(value=facts[key]) for key in _WEIGHTS_FACTS if key in facts]
        if fine_tuned := t.get(f"weights_fine_tune_{facts.get('fine_tune')}"):
            others.append(fine_tuned)
        yield (
            t["provenance_weights"],
            ", ".join([f"{facts['name']} {facts.get('version', '')}".strip(), *others]),
        )


def _listed(versions: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
