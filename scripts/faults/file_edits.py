"""Random edits of the files of a run folder: one function per structured file format."""

import csv
import hashlib
import io
import os
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from scripts.faults.hostile_edits import ODD_VALUES, edit_value

_MAGIC = b"shardstream checkpoint 1\n"
_WEIGHTS = "model.weights.h5"


def edit_file(run: Path, other: Path, rng: random.Random) -> str:
    """Edits one file of a run folder; `other` is a run with other options. Returns a description."""
    # Weighted by the amount of structure.
    shares = {"config.json": 1, "history.csv": 1, "model.json": 2, "best.keras": 5}
    files = [run / name for name, share in shares.items() if (run / name).exists() for _ in range(share)]
    files += 4 * sorted((run / "checkpoints").glob("*"))
    path = rng.choice(files)
    kind = rng.choice(["inside"] * 6 + ["bytes", "cut", "other", "link", "pipe", "folder", "gone"])
    if kind == "inside":
        kind = _INSIDES[path.suffix](path, rng)
    elif kind == "bytes":
        content = bytearray(path.read_bytes())
        for _ in range(rng.choice([1, 4, 64])):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content)
    elif kind == "cut":
        os.truncate(path, rng.randrange(path.stat().st_size))
    elif kind == "other":
        source = other / path.name if (other / path.name).exists() else other / "best.keras"
        shutil.copyfile(source, path)
    else:
        path.unlink()
        target = rng.choice(["/dev/zero", "../precious/thesis.txt", "nowhere", "../precious"])
        makes: dict[str, Callable[[], object]] = {
            "link": lambda: path.symlink_to(target),
            "pipe": lambda: os.mkfifo(path),
            "folder": path.mkdir,
            "gone": lambda: None,
        }
        makes[kind]()
    return f"{path.name if path.suffix != '.checkpoint' else 'checkpoint'}: {kind}"


def _edit_json(path: Path, rng: random.Random) -> str:
    edit_value(path, rng)
    return "value"


def _edit_csv(path: Path, rng: random.Random) -> str:
    rows = list(csv.reader(path.read_text().splitlines()))
    row = rng.choice(rows)
    odd = rng.choice([*map(str, ODD_VALUES), "inf", "-inf", "NaN", "1e400", "-3", "\0"])
    row[rng.randrange(len(row))] = odd
    with path.open("w", newline="", errors="surrogatepass") as file:
        csv.writer(file).writerows(rows)
    return "cell"


def _edit_model(path: Path, rng: random.Random) -> str:
    """Edits the contents of a model archive."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(["config.json"] * 3 + [_WEIGHTS] * 2 + ["metadata.json"])
    if name == _WEIGHTS:
        kind = rng.choice(["an array", "bytes"])
        members[name] = (
            _edit_array(members[name], rng) if kind == "an array" else _edit_bytes(members[name], rng)
        )
    else:
        kind, beside = "value", path.with_name("edited.json")
        beside.write_bytes(members[name])
        for _ in range(rng.choice([1, 1, 3])):
            edit_value(beside, rng)
        members[name] = beside.read_bytes()
        beside.unlink()
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return f"{kind} in {name}"


def _edit_array(content: bytes, rng: random.Random) -> bytes:
    import h5py
    import numpy as np

    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        name = rng.choice(names)
        before = np.asarray(file[name])
        huge = {"shape": (40_000, 40_000), "dtype": "f4", "chunks": (100, 100), "compression": "gzip"}
        edits: list[Callable[[], object]] = [
            lambda: file.create_dataset(
                name, data=np.full_like(before, rng.choice([np.nan, np.inf, 1e38, 0.0]))
            ),
            lambda: file.create_dataset(
                name, data=before.astype(rng.choice(["f8", "f2", "i1", "c8", "?", "S4"]))
            ),
            lambda: file.create_dataset(name, data=before.reshape(-1)[: rng.randrange(before.size + 1)]),
            lambda: file.create_dataset(name, data=before[None]),
            lambda: file.create_dataset(name, **huge),
            lambda: file.create_dataset(name, data="text"),
            lambda: file.__setitem__(name, h5py.ExternalLink("/dev/zero", "/x")),
            lambda: file.__setitem__(name, h5py.SoftLink("/" + name)),
            lambda: file.create_group(name),
            lambda: None,
        ]
        del file[name]
        rng.choice(edits)()
    return buffer.getvalue()


def _edit_bytes(content: bytes, rng: random.Random) -> bytes:
    edited = bytearray(content)
    # The beginning has the structure; after it are numbers, all equivalent.
    end = rng.choice([200, 5000, len(edited)])
    for _ in range(rng.choice([1, 8])):
        edited[rng.randrange(end)] = rng.randrange(256)
    return bytes(edited)


def _edit_checkpoint(path: Path, rng: random.Random) -> str:
    """Edits a value of the header, and updates the digest, as an attacker could."""
    content = path.read_bytes()
    start = len(_MAGIC) + 8
    (length,) = struct.unpack_from("<Q", content, len(_MAGIC))
    beside = path.with_name("edited.json")
    beside.write_bytes(content[start : start + length])
    edit_value(beside, rng)
    header = beside.read_bytes()
    beside.unlink()
    body = _MAGIC + struct.pack("<Q", len(header)) + header + content[start + length : -32]
    path.write_bytes(body + hashlib.sha256(body).digest())
    return "value, digest fits"


_INSIDES: dict[str, Callable[[Path, random.Random], str]] = {
    ".json": _edit_json,
    ".csv": _edit_csv,
    ".keras": _edit_model,
    ".checkpoint": _edit_checkpoint,
}
