"""Edits run folders and their model files at random, as a stranger could, and says what does not end as it should.

    python -m scripts.faults.model_edits [--secs 600] [--seed 1]

A finished and a stopped run of a small model are copied, one of their files is edited (values of JSON, of CSV, of the
model's config, of the header of a checkpoint; arrays of HDF5; bytes; links, pipes and folders in the place of files;
files of another run), and what the commands call is called on it, all in one process, as TensorFlow takes seconds
to start: `status`, `export`, predicting, features, `--weights`, and going on with the stopped run. Each must end
in success or one sentence, within 10 s of processor time and 1 GB more than with the run as it was, and nothing outside
may change. Prints a table and one JSON line; ends with 1 if anything went wrong.
"""

import collections
import contextlib
import dataclasses
import faulthandler
import gc
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tyro
from PIL import Image

from scripts.faults.file_edits import edit_file
from shardstream import build_dataset, embed, load_classifier, train_and_evaluate
from shardstream.ingest.common.errors import UserError
from shardstream.train.__main__ import main as train_command
from shardstream.train.models.build import build_model
from shardstream.train.runs.earlier_weights import begin_with

MAX_SECS, MAX_BYTES = 10.0, 1_000_000_000
# After this time the process ends with a traceback of where it hangs.
_HANGS_SECS = 120
_SIZE = 32
_CLASSES = ("exterior", "food", "interior")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelEditsConfig:
    """Edits run folders and model files at random."""

    secs: float = 600
    """How long edits are tried."""
    seed: int = 1
    """Another one gives other edits."""


class Scene:
    """Intact runs, copies of them to edit, and unrelated files next to them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data, self.run = folder, folder / "data", folder / "run"
        _draw(folder / "photos")
        build_dataset(folder / "photos", self.data, image_size=_SIZE)
        (folder / "precious").mkdir()
        (folder / "precious/thesis.txt").write_text("years of work\n")
        self.options: dict[str, Any] = {
            "data_dir": self.data,
            "model": "small",
            "epochs": 2,
            "batch_size": 16,
        }
        self.whole = {name: folder / "kept" / name for name in ("finished", "stopped")}
        train_and_evaluate(run=self.whole["finished"], **self.options)
        train_and_evaluate(
            run=folder / "kept/other", **self.options | {"seed": 5, "epochs": 1, "image_size": 24}
        )
        with contextlib.suppress(UserError):
            self._train(self.whole["stopped"], [_StopAfterOneEpoch()])

    def _train(self, run: Path, callbacks: list[Any]) -> None:
        from shardstream.train.config import TrainConfig
        from shardstream.train.run import train_and_evaluate

        train_and_evaluate(TrainConfig(run=run, **self.options), callbacks)

    def copy(self, name: str) -> Path:
        """Copies an intact run to `run`."""
        _remove(self.run)
        return shutil.copytree(self.whole[name], self.run)

    def others(self) -> dict[str, str]:
        """Returns the hash of each unrelated file, by path."""
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and not path.is_relative_to(self.run)
        }

    def jobs(self, name: str, rng: random.Random) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yields the calls to try on a run."""
        image = np.full((_SIZE, _SIZE, 3), 99, np.uint8)
        yield "status", lambda: _command("status", self.run)
        if name == "stopped":
            yield "resume", lambda: _command(self.data, "--run", self.run, *_flags(self.options))
            return
        yield "predict", lambda: load_classifier(self.run).predict([image])
        yield from (
            ("embed", lambda: embed(self.run, [image])),
            ("weights", lambda: self._begin(self.run)),
            ("export", lambda: _command("export", self.run, "--format", rng.choice(["keras", "savedmodel"]))),
            ("train", lambda: _command(self.data, "--run", self.run, *_flags(self.options))),
        )

    def some_jobs(self, name: str, rng: random.Random) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yields the first two of these and one of the others, if there are any."""
        first, *others = self.jobs(name, rng)
        yield first
        yield from others[:1]
        yield from rng.sample(others[1:], min(1, len(others[1:])))

    def _begin(self, run: Path) -> None:
        model = build_model("small", image_size=_SIZE, num_classes=3, seed=0)
        begin_with(model, str(run), _CLASSES)


class _StopAfterOneEpoch(keras.callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def run(config: ModelEditsConfig) -> int:
    """Runs the campaign and returns the exit code."""
    rng = random.Random(config.seed)
    came: collections.Counter[tuple[str, str]] = collections.Counter()
    failures: list[dict[str, object]] = []
    count, most_secs, most_bytes = 0, 0.0, 0
    with tempfile.TemporaryDirectory(prefix="model-edits-") as folder:
        scene = Scene(Path(folder))
        usual = {}
        for name in 2 * [*scene.whole]:  # The first time includes compilation.
            for job, act in scene.jobs(name, rng):
                scene.copy(name)
                ended, secs, num_bytes = attempt(act)
                if ended != "done" and job != "train":
                    raise RuntimeError(f"{job} of a run that nobody edited: {ended}")
                usual[job] = secs, num_bytes
        before, end = scene.others(), time.monotonic() + config.secs
        while time.monotonic() < end:
            name = rng.choice(["finished"] * 4 + ["stopped"])
            kind = edit_file(scene.copy(name), scene.folder / "kept/other", rng)
            count += 1
            for job, act in scene.some_jobs(name, rng):
                print(f"{count} {kind} {job}", file=sys.stderr, flush=True)
                ended, secs, num_bytes = attempt(act, *usual[job])
                most_secs, most_bytes = max(most_secs, secs), max(most_bytes, num_bytes)
                came[kind, f"{job}: {ended.split(':')[0]}"] += 1
                if ended.startswith("!"):
                    failures.append({"round": count, "edit": kind, "job": job, "came": ended})
            if scene.others() != before:
                failures.append({"round": count, "edit": kind, "came": "! a file outside of the run changed"})
                break
    for (kind, ended), number in sorted(came.items()):
        print(f"{kind:44}  {ended:36}  {number}")
    figures = {"count": count, "jobs": came.total(), "secs": most_secs, "bytes": most_bytes}
    print(json.dumps({**figures, "seed": config.seed, "failures": failures}))
    return 1 if failures else 0


def attempt(
    act: Callable[[], object], usual_secs: float = 1e9, usual_bytes: int = 1 << 60
) -> tuple[str, float, int]:
    """Returns how a call ended, with a "!" prefix for a violation, its seconds, and its additional bytes.

    The seconds are CPU time: the machine may have other work.
    """
    keras.utils.clear_session()
    gc.collect()
    before, began = _reset_peak(), time.process_time()
    faulthandler.dump_traceback_later(_HANGS_SECS, exit=True)
    try:
        act()
        ended = "done"
    except UserError as error:
        text = str(error)
        ended = "a sentence" if text.strip() and "\n" not in text else f"! no sentence: {text[:200]}"
    except Exception as error:
        ended = f"! {type(error).__name__}: {str(error)[:200]} at {_place(error)}"
    finally:
        faulthandler.cancel_dump_traceback_later()
    secs, num_bytes = time.process_time() - began, _status("VmHWM") - before
    if secs > usual_secs + MAX_SECS:
        ended = f"! {secs:.0f} s: {ended}"
    if num_bytes > usual_bytes + MAX_BYTES:
        ended = f"! {num_bytes / 1e9:.1f} GB: {ended}"
    return ended, secs, num_bytes


def _command(*arguments: object) -> None:
    """Runs `shardstream-train` in this process; its output is the message."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = train_command([str(argument) for argument in arguments])
    said = [line for line in output.getvalue().splitlines() if line.startswith("shardstream-train")]
    if code not in (0, 1, 2, 3) or (code and len(said) != 1):
        raise RuntimeError(f"exit code {code}: {output.getvalue()[-200:]}")
    if code:
        raise UserError(said[0])


def _draw(folder: Path) -> None:
    """Writes images of three classes, each with a color of its own."""
    random_ = np.random.default_rng(1)
    for number, name in enumerate(_CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(30):
            pixels = random_.integers(0, 150, (_SIZE, _SIZE, 3))
            pixels[..., number] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")


def _flags(options: dict[str, Any]) -> list[str]:
    return [
        word
        for name, value in options.items()
        if name != "data_dir"
        for word in ("--" + name.replace("_", "-"), str(value))
    ]


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"


def _reset_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


if __name__ == "__main__":
    sys.exit(run(tyro.cli(ModelEditsConfig, description=__doc__)))
