"""The code of docs/api.md runs as it is there, block after block."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

API = Path(__file__).resolve().parents[1] / "docs/api.md"


def test_the_code_runs_in_order(tmp_path):
    for number in range(120):
        # Bright and dark, so that a model tells them apart.
        pixels = np.random.default_rng(number).integers(0, 100, (20, 20, 3), np.uint8) + 150 * (number % 2)
        path = tmp_path / "photos" / ("food", "interior")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    blocks = re.findall(r"^```python\n(.*?)^```", API.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) > 8
    exporting = (
        "from shardstream.train.__main__ import main\nmain(['export', 'runs/first', '--format', 'tflite'])\n"
    )
    blocks = [exporting + block if "tflite/labels.json" in block else block for block in blocks]
    # A process of its own, as signal handlers and the current folder are of the process.
    script = tmp_path / "api.py"
    script.write_text("\n\n".join(f"print('block {n}')\n{block}" for n, block in enumerate(blocks)))
    result = subprocess.run(
        [sys.executable, script.name],
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-500:] + result.stderr[-3000:]
    assert (tmp_path / "runs/first/best.keras").exists()
    assert "begun with batch_size=32, now it is 16" in result.stdout
    assert "no split 'dev'; there is train, validation" in result.stdout
    assert "`shuffle=True` was passed" not in result.stderr
    assert result.stdout.splitlines()[-1].split()[0] in {"food", "interior"}  # By the TFLite file.
