"""Edits datasets at random, as a stranger could, and says which command does not end in success or in one sentence.

    python -m scripts.faults.hostile_edits PHOTOS [--count 200] [--seed 1]

A dataset of PHOTOS is copied, one of its descriptions is edited (values of JSON, bytes, links and pipes in the place of
files), its hashes are made to fit again in half of the rounds, and info, verify, update and repair are run. Each must
end within --secs with one of its exit codes, a message, no traceback and less than 1 GB of memory, and nothing outside
of the dataset may change. Prints a table and one JSON line; ends with 1 if anything went wrong.
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import tyro

MAX_BYTES = 1_000_000_000
FILES = (
    "metadata.json",
    "manifest.parquet",
    "source_state.parquet",
    "features.json",
    "dataset_info.json",
    "label.labels.txt",
    "index.npy",
)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 2**31, 2**63, 10**30, 10**400, -(10**30), 0.5, float("nan"), float("inf"), 1e308),
    *(
        "",
        "x",
        "../x",
        "/etc/passwd",
        "a\0b",
        "\ud800",
        "x" * 100_000,
        "(a+)+$",
        "\x1b[31m",
        "-1",
        "9" * 5000,
    ),
    *([], [1], {}, {"a": 1}, [[]] * 3, ["food", "food"]),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditsConfig:
    """Edits datasets at random."""

    images: tyro.conf.Positional[Path]
    """A folder of photos to make the dataset of."""
    count: int = 200
    """How many edits are tried."""
    seed: int = 1
    """Another one gives other edits."""
    secs: float = 20
    """How long a command may take."""


class Scene:
    """An intact dataset, a copy of it to edit, and unrelated files next to them."""

    def __init__(self, folder: Path, images: Path) -> None:
        self.folder, self.data, self.whole = folder, folder / "data", folder / "kept/data"
        self.photos = shutil.copytree(images, folder / "photos")
        (folder / "precious").mkdir()
        (folder / "precious/thesis.txt").write_text("years of work\n")
        (folder / "x").write_text("years of work, too\n")
        size = ("--image-size", "32", "--shard-size", "20KiB", "--max-rejected", "1")
        subprocess.run(_command("build", self.photos, self.whole, *size), check=True, capture_output=True)

    def others(self) -> dict[str, str]:
        """Returns the hash of each file outside of the dataset and its staging area, by path."""
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.folder.rglob("*")
            if path.is_file()
            and not path.is_relative_to(self.data)
            # Left by a command that was killed after the time limit.
            and ".incomplete" not in str(path)
            and path.name != "data.lock"
        }


def run(config: EditsConfig) -> int:
    """Runs the campaign and returns the exit code."""
    rng = random.Random(config.seed)
    came: collections.Counter[tuple[str, str]] = collections.Counter()
    failures = []
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        scene = Scene(Path(name), config.images)
        before = scene.others()
        for number in range(config.count):
            for left in (scene.data, scene.data.with_name("data.incomplete")):
                shutil.rmtree(left, ignore_errors=True)
            shutil.copytree(scene.whole, scene.data)
            kind = edit(scene.data, rng)
            for command in ("info", "verify", "update", "repair"):
                ended = attempt(scene, command, config.secs)
                came[kind, ended] += 1
                if ended.startswith("!"):
                    failures.append({"round": number, "edit": kind, "command": command, "came": ended})
            if scene.others() != before:
                failures.append(
                    {"round": number, "edit": kind, "came": "! a file outside of the dataset changed"}
                )
                break
    for (kind, ended), count in sorted(came.items()):
        print(f"{kind:32}  {ended[:60]:60}  {count}")
    print(json.dumps({"count": config.count, "seed": config.seed, "failures": failures}))
    return 1 if failures else 0


def edit(data: Path, rng: random.Random) -> str:
    """Edits one file of a dataset; returns a description."""
    path = data / rng.choice([name for name in FILES if (data / name).exists()])
    kind = rng.choice(["value", "value", "value", "bytes", "cut", "link", "pipe", "folder"])
    if kind == "value" and path.suffix == ".json":
        edit_value(path, rng)
    elif kind in ("bytes", "value"):
        content = bytearray(path.read_bytes())
        for _ in range(rng.choice([1, 4, 64])):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content)
        kind = "bytes"
    elif kind == "cut":
        os.truncate(path, rng.randrange(path.stat().st_size))
    else:
        if rng.random() < 0.5:
            path = rng.choice(sorted(data.glob("*.tfrecord-*")))
        path.unlink()
        target = rng.choice(["/dev/zero", "../precious/thesis.txt", "nowhere", "../precious"])
        {"link": lambda: path.symlink_to(target), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[
            kind
        ]()
    if kind in ("value", "bytes") and rng.random() < 0.5:
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
            _fit(data)
            kind += ", hashes fit"
    return f"{kind}: {'shard' if 'tfrecord' in path.name else path.name}"


def edit_value(path: Path, rng: random.Random) -> None:
    """Sets a value in a JSON file to an odd one, or removes it."""
    content = json.loads(path.read_text())
    if not (places := list(_places(content))):
        return
    holder, key = rng.choice(places)
    if rng.random() < 0.1:
        del holder[key]
    else:
        holder[key] = rng.choice(ODD_VALUES)
    path.write_text(json.dumps(content))


def _places(node: Any) -> Any:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(items):
        yield node, key
        yield from _places(value)


def _fit(data: Path) -> None:
    """Updates the hashes of metadata.json, as an attacker could."""
    path = data / "metadata.json"
    content = json.loads(path.read_text())
    held = {
        "class_names": content["class_names"],
        "image": content["judging"]["image"],
        "splits": {
            name: [(shard["num_examples"], shard["sha256"]) for shard in split["shards"]]
            for name, split in content["splits"].items()
        },
    }
    content["fingerprint"] = hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()
    content["manifest_sha256"] = hashlib.sha256((data / "manifest.parquet").read_bytes()).hexdigest()
    path.write_text(json.dumps(content))


def attempt(scene: Scene, command: str, secs: float) -> str:
    """Runs a command on the edited dataset; returns how it ended, with a "!" prefix for a violation."""
    paths = [scene.data] if command in ("info", "verify") else [scene.photos, scene.data]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [*_command(command, *paths)],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(secs)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            return f"! {command}: no end within {secs:g} s"
        output.seek(0)
        text = output.read().decode(errors="replace")
    if "Traceback (most recent call last)" in text:
        return f"! {command}: a traceback: {text.strip().splitlines()[-1][:200]}"
    if process.returncode not in (0, 1, 2, 3) or not text.strip():
        return f"! {command}: exit code {process.returncode}"
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    if peak > MAX_BYTES:
        return f"! {command}: {peak / 1e9:.1f} GB"
    return "done" if process.returncode == 0 else f"a sentence, exit code {process.returncode}"


def _command(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "shardstream.ingest", name, *map(str, arguments)]


if __name__ == "__main__":
    sys.exit(run(tyro.cli(EditsConfig, description=__doc__)))
