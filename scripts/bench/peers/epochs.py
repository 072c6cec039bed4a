"""Times programs that read a dataset: epoch by epoch, with the number of images.

Imported in the other environments too: standard library only.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from way import core_secs

BATCH = 32
SIZE = 300


def arguments(description: str) -> argparse.ArgumentParser:
    """Returns a parser of the arguments of all readers: INPUTS OWN --workers N --epochs N."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("inputs", type=Path, help="holds originals/, files/ at 300x300, data/ of ours")
    parser.add_argument(
        "own", type=Path, help="a folder for the format of this way, made where it is not there"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes or threads at once")
    parser.add_argument("--epochs", type=int, default=3)
    return parser


def measure_epochs(
    make_epoch: Callable[[int], Iterable[Any]],
    num_epochs: int,
    *packages: str,
) -> None:
    """Runs epochs and prints, as one JSON line, the number of images and the times of each.

    Args:
        make_epoch: Returns the batches of an epoch; the call is included in its time.
        num_epochs: Number of epochs.
        packages: Packages whose versions are printed.
    """
    epochs = []
    dtype = ""
    for epoch in range(num_epochs):
        began, cores_began = time.perf_counter(), core_secs(os.getpid())
        num_pictures = 0
        for batch in make_epoch(epoch):
            dtype = dtype or dtype_of(batch)
            num_pictures += len(batch[0])
        secs = time.perf_counter() - began
        cores = core_secs(os.getpid()) - cores_began
        epochs.append({"pictures": num_pictures, "secs": secs, "core_secs": cores})
    versions = {package: version(package) for package in packages}
    print(json.dumps({"epochs": epochs, "dtype": dtype, "versions": versions}), flush=True)


def dtype_of(batch: Any) -> str:
    """Returns the dtype of the images of a batch, such as "uint8", for any library."""
    return str(batch[0].dtype).removeprefix("torch.").removeprefix("<dtype: '").removesuffix("'>")


def list_files(folder: Path) -> list[tuple[Path, int]]:
    """Returns path and label of each photo in the category folders of `folder`, in the order of their names."""
    categories = sorted(path for path in folder.iterdir() if path.is_dir())
    return [(path, label) for label, category in enumerate(categories) for path in sorted(category.iterdir())]
