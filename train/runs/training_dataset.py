"""Finds the dataset that a run was trained on."""

import json
from pathlib import Path

from shardstream.ingest.common.errors import UserError
from shardstream.ingest.common.safe_files import read_regular
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.data.folder import load_info
from shardstream.train.runs.run_folder import open_run
from shardstream.train.runs.saved_model import ModelInfo


def find_training_dataset(run_dir: Path, model: ModelInfo) -> DatasetInfo | None:
    """Returns the dataset named in config.json of a run; None if it was removed or has changed."""
    try:
        config = json.loads(read_regular(open_run(run_dir).config))
        dataset = load_info(Path(config["data_dir"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, UserError):
        return None
    return dataset if dataset.fingerprint == model.dataset_fingerprint else None
