"""The edits of run folders; the campaign itself takes minutes."""

import csv
import hashlib
import json
import random
import zipfile

import h5py
import numpy as np

from scripts.faults.file_edits import edit_file


def make_run(path):
    """Files of the kinds that a run folder has, without a training."""
    path.mkdir()
    for name in ("config.json", "model.json"):
        (path / name).write_text(json.dumps({"epochs": 3, "class_names": ["a", "b"]}))
    with (path / "history.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["epoch", "val_loss"], [1, 0.5]])
    with h5py.File(path / "w.h5", "w") as file:
        file["layers/dense"] = np.ones((3, 4), np.float32)
    with zipfile.ZipFile(path / "best.keras", "w") as archive:
        archive.write(path / "w.h5", "model.weights.h5")
        archive.writestr("config.json", '{"class_name": "Sequential", "config": {}}')
        archive.writestr("metadata.json", '{"keras_version": "3"}')
    (path / "w.h5").unlink()
    (path / "checkpoints").mkdir()
    header = b'{"position": {"epoch": 1}}'
    body = b"shardstream checkpoint 1\n" + len(header).to_bytes(8, "little") + header + bytes(100)
    (path / "checkpoints/1.checkpoint").write_bytes(body + hashlib.sha256(body).digest())
    return path


def test_every_edit_is_of_one_file_and_follows_from_the_seed(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/thesis.txt").write_text("years of work")
    other = make_run(tmp_path / "other")
    kinds = set()
    for seed in range(200):
        first, again = (
            edit_file(make_run(tmp_path / f"{seed}{copy}"), other, random.Random(seed)) for copy in ("a", "b")
        )
        assert first == again
        kinds.add(first.split(": ")[1])
    assert kinds >= {
        "value",
        "cell",
        "bytes",
        "cut",
        "other",
        "link",
        "pipe",
        "folder",
        "gone",
        "value, digest fits",
    }
    assert {"an array in model.weights.h5", "value in config.json"} <= kinds
    assert (tmp_path / "precious/thesis.txt").read_text() == "years of work"
