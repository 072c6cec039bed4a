"""Every cell of the notebook in processes of their own, on demo photos: a session that is killed, and the next one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "scripts/notebooks/colab.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
EPOCHS = 12


def test_what_is_in_the_file():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["metadata"]["accelerator"]) == (4, "GPU")
    for cell in CELLS:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            assert re.search(r"[가-힣]{2}", text)
            assert re.search(r"\b[a-z]{3,} [a-z]{3,}", text)
        else:
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            compile(text, "cell", "exec")  # Plain Python: nothing that only a notebook understands.
        assert "://" not in text  # Where the project comes from, the user says.


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    photos = tmp_path_factory.mktemp("colab") / "photos"
    command = [sys.executable, "-m", "scripts.demo_images", photos, "--count", "30"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return photos


def session(folder, photos):
    """Starts a session: all cells in one namespace, with settings of the test after the cell of settings."""
    settings = {
        "PHOTOS": str(photos),
        "RUN": str(folder / "drive/run"),
        "DATA": str(folder / "data"),
        "IMAGE_SIZE": 32,
        "TRAIN_OPTIONS": ["--model", "small", "--epochs", str(EPOCHS), "--batch-size", "8"],
    }
    (parameters,) = (i for i, text in enumerate(CODE) if text.startswith("DRIVE = "))
    cells = [*CODE[: parameters + 1], f"globals().update({settings!r})", *CODE[parameters + 1 :]]
    (folder / "session.py").write_text("\n\n".join(cells), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, folder / "session.py"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


@pytest.mark.slow
def test_a_session_that_is_cut_off_goes_on_in_the_next_one(tmp_path, photos):
    first = session(tmp_path, photos)
    checkpoints = tmp_path / "drive/run/checkpoints"
    end = time.monotonic() + 300
    while (
        not (checkpoints.is_dir() and any(not path.name.endswith(".part") for path in checkpoints.iterdir()))
        and time.monotonic() < end
    ):
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    said, _ = first.communicate(timeout=60)
    assert "not on Colab" in said
    assert "is installed" in said
    assert not (tmp_path / "drive/run/report").exists()

    # The machine is another one: what lay on it is gone.
    for path in sorted((tmp_path / "data").rglob("*")):
        path.unlink()
    (tmp_path / "data").rmdir()
    second = session(tmp_path, photos)
    said, _ = second.communicate(timeout=600)
    assert second.returncode == 0, said
    assert re.search("goes on from (the end|step [0-9]+) of epoch", said)
    assert f"epoch {EPOCHS}/{EPOCHS}" in said
    page = (tmp_path / "drive/run/report/index.html").read_text(encoding="utf-8")
    assert "음식" in page
    assert str(tmp_path / "drive/run/report/index.html") in said

    # Once more, where everything is there: the run is left alone, the report made again.
    third = session(tmp_path, photos)
    said, _ = third.communicate(timeout=600)
    assert third.returncode == 0, said
    assert "is finished" in said
    assert "ingest update" in said
