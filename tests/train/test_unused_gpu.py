import logging
import subprocess
import sys

import pytest
import tensorflow as tf

from shardstream.train import unused_gpu
from shardstream.train.unused_gpu import warn_of_unused_gpu

pytestmark = pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="for machines without a GPU that is seen"
)
SENTENCE = "this machine has an NVIDIA driver, but TensorFlow sees no GPU, and the CPU trains: "


@pytest.fixture(autouse=True)
def _no_driver(tmp_path, monkeypatch):
    """Neither of this machine's own."""
    monkeypatch.setattr(unused_gpu, "_DRIVER", tmp_path / "version")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def add_nvidia_smi(folder, exit_code):
    program = folder / "nvidia-smi"
    program.write_text(f'#!/bin/sh\n[ "$1" = -L ] && echo "GPU 0: Tesla T4"\nexit {exit_code}\n')
    program.chmod(0o755)


def warnings(caplog) -> list[str]:
    with caplog.at_level(logging.INFO, logger="shardstream"):
        warn_of_unused_gpu()
    return caplog.messages


def test_a_driver_that_tensorflow_does_not_use_is_told_in_one_line(tmp_path, caplog):
    add_nvidia_smi(tmp_path, 0)
    (line,) = warnings(caplog)
    assert line.startswith(SENTENCE)
    assert f"'tensorflow[and-cuda]=={tf.__version__}'" in line or "scripts/bootstrap gpu" in line


def test_where_the_repository_made_the_environment_its_script_helps(tmp_path, caplog, monkeypatch):
    add_nvidia_smi(tmp_path, 0)
    (tmp_path / "bootstrap").mkdir()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert warnings(caplog) == [f"{SENTENCE}`scripts/bootstrap gpu` adds the libraries of CUDA that it lacks"]


def test_a_driver_is_known_by_its_file_too(tmp_path, caplog):
    (tmp_path / "version").touch()
    assert len(warnings(caplog)) == 1


def test_where_the_libraries_are_there_the_way_to_the_reason_is_told(tmp_path, caplog, monkeypatch):
    add_nvidia_smi(tmp_path, 0)
    site = tmp_path / "site"
    for line in unused_gpu.importlib.metadata.requires("tensorflow") or []:
        if "and-cuda" in line:
            name = line.split("<")[0]
            info = site / f"{name.replace('-', '_')}-99.0.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 99.0\n")
    monkeypatch.syspath_prepend(str(site))
    (line,) = warnings(caplog)
    assert line.startswith(
        f"{SENTENCE}the libraries of CUDA are there, and `TF_CPP_MIN_LOG_LEVEL=0 python -c"
    )


@pytest.mark.parametrize(
    ("has_program", "visible"),
    [(False, None), (True, "-1"), (True, "")],
)
def test_nothing_is_said_without_a_driver_or_where_the_gpu_is_hidden(
    tmp_path, caplog, monkeypatch, has_program, visible
):
    if has_program:
        add_nvidia_smi(tmp_path, 0)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert warnings(caplog) == []


def test_a_program_without_a_gpu_behind_it_is_no_driver(tmp_path, caplog):
    add_nvidia_smi(tmp_path, 9)
    assert warnings(caplog) == []


def test_the_command_says_it(striped, tmp_path):
    add_nvidia_smi(tmp_path, 0)
    command = [
        sys.executable,
        "-m",
        "shardstream.train",
        str(striped.data_dir),
        "--run",
        str(tmp_path / "run"),
    ]
    options = ["--model", "notebook", "--epochs", "1", "--image-size", "8", "--cache", "none"]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stderr.splitlines() if SENTENCE in line]) == 1
