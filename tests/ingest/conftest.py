"""Small folders of photos to ingest."""

import io
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DrawPhoto = Callable[..., bytes]
MakeFolder = Callable[..., Path]


def draw_photo(
    seed: int, *, size: tuple[int, int] = (40, 60), file_format: str = "JPEG", **options: object
) -> bytes:
    """Returns an encoded smooth picture, height x width, that differs with `seed`."""
    height, width = size
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return encode(image, file_format, **options)


def encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


# What lies in DATA.incomplete in each phase of a job.
PHASES = {
    "map": "units/*/*.part",
    "reduce": "shards/*/*",
    "assembly": "dataset/*.tfrecord*",
    "repair map": "repair/units/*/*.part",
    "repair manifest": "repair/dataset/manifest.parquet*",
    "repair shards": "repair/shards/*/*",
}


def kill_in(phase: str, command: list[str], data: Path) -> bool:
    """Kills a job and its workers in a phase; returns whether it was still there, and not done already."""
    staging = data.with_name(f"{data.name}.incomplete")
    with subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            if _has_begun(phase, staging):
                os.killpg(process.pid, signal.SIGKILL)
                return process.wait() == -signal.SIGKILL
            time.sleep(0.0005)
    return False


def _has_begun(phase: str, staging: Path) -> bool:
    try:
        return any(staging.glob(PHASES[phase]))
    except FileNotFoundError:  # A folder that the job removed while it was listed.
        return False


@pytest.fixture(scope="session")
def kill() -> Callable[[str, list[str], Path], bool]:
    return kill_in


@pytest.fixture(scope="session")
def photo() -> DrawPhoto:
    return draw_photo


@pytest.fixture(scope="session")
def make_photos() -> MakeFolder:
    return write_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of three categories with 20 different photos each."""
    return write_photos(tmp_path / "photos", num_photos=20)


def write_photos(root: Path, *, num_photos: int) -> Path:
    for label, name in enumerate(("food", "interior", "exterior")):
        (root / name).mkdir(parents=True)
        for number in range(num_photos):
            (root / name / f"{number}.jpg").write_bytes(draw_photo(1000 * label + number))
    return root
