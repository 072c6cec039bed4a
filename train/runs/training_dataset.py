"""The dataset that a run was trained on, if it is still where it was."""

import json
from pathlib import Path

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.data.folder import load_info
from shardstream.train.runs.run_folder import open_run
from shardstream.train.runs.saved_model import ModelInfo


def find_training_dataset(run_dir: Path, model: ModelInfo) -> DatasetInfo | None:
    """Returns the dataset that config.json of a run names; None where that is gone or has another content now."""
    try:
        config = json.loads(open_run(run_dir).config.read_text(encoding="utf-8"))
        dataset = load_info(Path(config["data_dir"]))
    except (OSError, ValueError, KeyError, TypeError, DatasetError):
        return None
    return dataset if dataset.fingerprint == model.dataset_fingerprint else None
