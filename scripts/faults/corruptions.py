"""Corrupts datasets in many ways, then verifies and repairs them."""

import dataclasses
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from scripts.faults.jobs import BUILD, FaultError, Scene, contents, run_to_end
from shardstream.ingest.commands.config import RepairConfig
from shardstream.ingest.commands.repair import repair_dataset
from shardstream.ingest.commands.verify import verify_dataset
from shardstream.ingest.common.errors import UserError
from shardstream.ingest.dataset.manifest import FILENAME as MANIFEST
from shardstream.ingest.dataset.metadata import FILENAME as METADATA
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.records import RecordError, read_records
from shardstream.ingest.dataset.tfds_files import FILENAMES as TFDS_FILES

_EVERY_NTH_BY_COMMAND = 25


@dataclasses.dataclass(frozen=True)
class Victim:
    """A dataset to corrupt.

    Attributes:
        data: The dataset folder.
        foreign: A dataset of the same name, with other images.
        rng: Random generator of the corruption.
    """

    data: Path
    foreign: Path
    rng: random.Random

    def shard(self) -> Path:
        """Returns one of the existing shards."""
        return self.rng.choice(sorted(self.data.glob("*.tfrecord-*")))

    def file(self) -> Path:
        """Returns one of the existing files, a shard as often as one of the others."""
        others = [self.data / name for name in (METADATA, MANIFEST, *TFDS_FILES)]
        others = [path for path in others if path.exists()]
        return self.rng.choice(others) if others and self.rng.random() < 0.5 else self.shard()


def flip_bit(victim: Victim) -> None:
    """Flips one bit of a file."""
    path = victim.file()
    content = bytearray(path.read_bytes())
    content[victim.rng.randrange(len(content))] ^= 1 << victim.rng.randrange(8)
    path.write_bytes(content)


def cut(victim: Victim) -> None:
    """Truncates a file at a random position."""
    path = victim.file()
    path.write_bytes(path.read_bytes()[: victim.rng.randrange(path.stat().st_size)])


def cut_between_records(victim: Victim) -> None:
    """Truncates a shard between two records."""
    path = victim.shard()
    with path.open("rb") as file:
        offset = victim.rng.choice([record.offset for record in read_records(file)])
    path.write_bytes(path.read_bytes()[:offset])


def zero_run(victim: Victim) -> None:
    """Overwrites a part of a file with zeros, like a disk that lost a block."""
    path = victim.file()
    content = bytearray(path.read_bytes())
    start = victim.rng.randrange(len(content))
    end = min(len(content), start + victim.rng.randint(1, 4096))
    content[start:end] = bytes(end - start)
    path.write_bytes(content)


def append(victim: Victim) -> None:
    """Appends bytes to a file."""
    with victim.file().open("ab") as file:
        file.write(victim.rng.randbytes(victim.rng.randint(1, 100)))


def delete(victim: Victim) -> None:
    """Deletes a file."""
    victim.file().unlink()


def swap(victim: Victim) -> None:
    """Swaps two shards."""
    one, other = victim.rng.sample(sorted(victim.data.glob("*.tfrecord-*")), 2)
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def put_foreign(victim: Victim) -> None:
    """Replaces a file by one of the same kind from another dataset."""
    path = victim.file()
    if path.name in TFDS_FILES:
        path = victim.shard()
    other = victim.foreign / path.name
    shutil.copy(
        other if other.exists() else victim.rng.choice(sorted(victim.foreign.glob("*.tfrecord-*"))), path
    )


def edit_metadata(victim: Victim) -> None:
    """Changes a field of the metadata such that it stays consistent."""
    info = DatasetInfo.load(victim.data)
    split = victim.rng.choice(list(info.splits.values()))
    shard = dataclasses.replace(split.shards[0], num_bytes=split.shards[0].num_bytes + 1)
    edited = dataclasses.replace(split, shards=(shard, *split.shards[1:]))
    changes = {
        "name": f"{info.name}x",
        "version": "7.0.0",
        "class_names": info.class_names[::-1],
        "display_names": tuple(f"{name}!" for name in info.display_names),
        "judging": dataclasses.replace(info.judging, max_pixels=info.judging.max_pixels + 1),
        "split_rule": dataclasses.replace(info.split_rule, seed=info.split_rule.seed + 1),
        "shard_bytes": info.shard_bytes + 1,
        "splits": {**info.splits, split.name: edited},
        "verdicts": {**info.verdicts, "ok": info.verdicts["ok"] + 1},
        "manifest_sha256": "0" * 64,
    }
    field = victim.rng.choice(list(changes))
    dataclasses.replace(info, **{field: changes[field]}).save(victim.data)


def duplicate(victim: Victim) -> None:
    """Copies a shard to a name that a reader would accept."""
    path = victim.shard()
    shutil.copy(path, path.with_name(path.name.replace("-of-", "-of-1")))


DAMAGES: dict[str, Callable[[Victim], None]] = {
    "flipped bit": flip_bit,
    "cut anywhere": cut,
    "cut between records": cut_between_records,
    "run of zeros": zero_run,
    "bytes appended": append,
    "file deleted": delete,
    "shards swapped": swap,
    "foreign file": put_foreign,
    "metadata edited": edit_metadata,
    "shard duplicated": duplicate,
}


REPAIRED, LEFT = "repaired", "left as it was"


@dataclasses.dataclass(frozen=True)
class DamageRound:
    """Result of a round.

    Attributes:
        kinds: How the dataset was corrupted.
        outcome: REPAIRED or LEFT; the latter is expected if both descriptions of the dataset were corrupted.
    """

    kinds: tuple[str, ...]
    outcome: str


def make_foreign(scene: Scene) -> Path:
    """Makes a dataset of the same name with other images."""
    data = scene.folder / "foreign/d"
    data.parent.mkdir()
    run_to_end([*scene.command(BUILD, data), "--seed", "5", "--quality", "50"], data.parent)
    return data


def damage_round(scene: Scene, foreign: Path, folder: Path, number: int, rng: random.Random) -> DamageRound:
    """Corrupts a dataset once or twice, and checks that all of it is detected and repaired.

    Raises:
        FaultError: A guarantee was violated.
    """
    reference = contents(scene.reference)
    data = folder / "d"
    kinds: tuple[str, ...] = ()
    while not kinds or contents(data) == reference:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(scene.reference, data)
        kinds = _damage(Victim(data, foreign, rng))
    damaged = contents(data)
    changed = {name for name in {**damaged, **reference} if damaged.get(name) != reference.get(name)}
    by_command = number % _EVERY_NTH_BY_COMMAND == 0
    found, is_mended = (_by_command if by_command else _by_library)(scene, data)
    if METADATA in changed and MANIFEST in found:  # They are inconsistent; nothing says which one is wrong.
        found = found - {MANIFEST} | {METADATA}
    # Then possibly nothing is known to be correct, and the findings may be fewer, or different.
    is_hopeless = {METADATA, MANIFEST} <= changed
    if not found or (found != changed and not is_hopeless):
        raise FaultError(f"{kinds}: changed were {sorted(changed)}, found were {sorted(found)}")
    # A foreign file stays where it is, and everything else is repaired.
    extra = {name: damaged[name] for name in changed - reference.keys()}
    if not is_mended and not is_hopeless and not extra:
        raise FaultError(f"{kinds} of {sorted(changed)}: not repaired")
    if contents(data) != (damaged if is_hopeless and not is_mended else reference | extra):
        raise FaultError(f"{kinds} of {sorted(changed)}: other bytes after the repair")
    return DamageRound(kinds, REPAIRED if is_mended else LEFT)


def _damage(victim: Victim) -> tuple[str, ...]:
    """Corrupts a dataset and returns how; empty if the first corruption left nothing for the second."""
    kinds = tuple(victim.rng.choices(list(DAMAGES), k=victim.rng.choice((1, 1, 2))))
    try:
        for kind in kinds:
            DAMAGES[kind](victim)
    except (UserError, RecordError, OSError, ValueError, IndexError):
        return ()
    return kinds


def _by_library(scene: Scene, data: Path) -> tuple[set[str], bool]:
    damages = verify_dataset(data, deep=False, workers=scene.workers)
    repairs = repair_dataset(RepairConfig(images=scene.photos, data=data, workers=scene.workers))
    is_mended = all(repair.is_mended for repair in repairs)
    if is_mended and (left := verify_dataset(data, deep=False, workers=scene.workers)):
        raise FaultError(f"damaged after the repair: {left}")
    return {damage.filename for damage in damages}, is_mended


def _by_command(scene: Scene, data: Path) -> tuple[set[str], bool]:
    exit_code, said = _run("verify", data)
    if exit_code != 1:
        raise FaultError(f"verify: exit code {exit_code} for a damaged dataset")
    repaired, repairs = _run("repair", scene.photos, data)
    if repaired != (0 if all(repair["is_mended"] for repair in repairs["repairs"]) else 1):
        raise FaultError(f"repair: exit code {repaired} for {repairs}")
    if repaired == 0 and _run("verify", data) != (0, {"damages": []}):
        raise FaultError("verify: damaged after the repair")
    return {damage["filename"] for damage in said["damages"]}, repaired == 0


def _run(*arguments: object) -> tuple[int, dict]:
    command = [sys.executable, "-m", "shardstream.ingest", *map(str, arguments), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode not in {0, 1} or result.stderr:
        raise FaultError(f"{arguments[0]}: exit code {result.returncode}, said {result.stderr[-1000:]}")
    return result.returncode, json.loads(result.stdout)
