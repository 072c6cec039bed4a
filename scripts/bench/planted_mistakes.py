r"""Plants mistakes among photos that a model has not seen, and counts how many of them the report names.

    python -m scripts.bench.planted_mistakes PHOTOS [--seeds 1 2 3] [--image-size 96] [--group '/(\d+)_']

For each seed three in ten of the photos are held out (grouped by --group), and a model is trained on the others
with the defaults of `shardstream-train`. Of the held-out photos, 5 are moved to another category, 5 that are not square
are rotated by 90 degrees, 5 blurred, and 10 get a recompressed copy; no photo is used twice. A photo counts as found
if the page names it in the corresponding list: labels to check, images unlike their class, look-alikes. The lists are
as long as in any report.
"""

import dataclasses
import json
import random
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from PIL import Image, ImageFilter, ImageOps

from shardstream.train.startup import start_tensorflow

if TYPE_CHECKING:
    from shardstream.predict.output.result import Report

HELD_OUT = 0.3
# Fraction of the longer side: a photo of 1,200 pixels is blurred by 20 pixels.
BLUR = 1 / 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlantConfig:
    """Plants mistakes among photos that a model has not seen, and counts how many of them the report names."""

    photos: tyro.conf.Positional[Path]
    """A folder of category folders."""
    seeds: tuple[int, ...] = (1,)
    """Photos, a model and a report for each of them."""
    image_size: int = 96
    """Height and width that photos are stored at."""
    epochs: int | None = None
    """Of each training; by default as many as `shardstream-train` chooses."""
    group: str = r"/(\d+)_"
    """Photos whose paths have the same first group of this pattern are held out together."""


# Paths of the planted mistakes, by kind; for duplicates both paths.
Planted = dict[str, list[set[str]]]


def main(config: PlantConfig) -> None:
    """Plants, trains, predicts and prints a table and one JSON line."""
    start_tensorflow()
    rows = []
    for seed in config.seeds:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(try_one(config, seed, Path(folder)))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(f"| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(map(str, row.values()))} |")
    print(json.dumps({"image_size": config.image_size, "rows": rows}))


def try_one(config: PlantConfig, seed: int, folder: Path) -> dict[str, object]:
    """Returns a row of the table: how many mistakes of each kind were found, and the lengths of the lists."""
    chance = random.Random(seed)
    copy_photos(config, chance, folder)
    planted = plant(folder / "held-out", chance)
    report = make_report(config, seed, folder)
    lists = named(report)
    return {
        "seed": seed,
        "photos": report.summary.num_examples,
        "accuracy": round(report.summary.accuracy.value, 3),
        **{
            kind: f"{sum(any(paths <= one for one in lists[kind]) for paths in found)} of {len(found)}"
            for kind, found in planted.items()
        },
        "labels to check": len(lists["mislabelled"]),
        "unlike their class": len(lists["on its side"]) + len(lists["blurred"]),
        "look-alikes": len(lists["twice"]),
    }


def copy_photos(config: PlantConfig, chance: random.Random, folder: Path) -> None:
    """Copies a part of the groups to `folder`/held-out and the others to `folder`/others."""
    photos = sorted(path for path in config.photos.glob("*/*") if path.is_file())
    groups: dict[str, list[Path]] = {}
    for path in photos:
        found = re.search(config.group, path.relative_to(config.photos).as_posix())
        groups.setdefault(found[1] if found else str(path), []).append(path)
    names = chance.sample(sorted(groups), len(groups))
    num_held_out = 0
    for name in names:
        held_out = num_held_out < HELD_OUT * len(photos)
        num_held_out += held_out * len(groups[name])
        for path in groups[name]:
            target = folder / ("held-out" if held_out else "others") / path.relative_to(config.photos)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def plant(folder: Path, chance: random.Random) -> Planted:
    """Plants mistakes among the photos of a folder and returns their paths."""
    categories = sorted(path.name for path in folder.iterdir())
    left = chance.sample(photos := sorted(folder.glob("*/*")), len(photos))

    def take(count: int, *, oblong: bool = False) -> list[Path]:
        taken = [path for path in left if not oblong or is_oblong(path)][:count]
        left[:] = [path for path in left if path not in taken]
        return taken

    def name(path: Path) -> str:
        return path.relative_to(folder).as_posix()

    planted: Planted = {"mislabelled": [], "on its side": [], "blurred": [], "twice": []}
    for path in take(5, oblong=True):
        save(open_photo(path).transpose(Image.Transpose.ROTATE_90), path)
        planted["on its side"].append({name(path)})
    for path in take(5):
        others = [category for category in categories if category != path.parent.name]
        moved = path.rename(folder / chance.choice(others) / f"moved-{path.name}")
        planted["mislabelled"].append({name(moved)})
    for path in take(5):
        photo = open_photo(path)
        save(photo.filter(ImageFilter.GaussianBlur(BLUR * max(photo.size))), path)
        planted["blurred"].append({name(path)})
    for path in take(10):
        copy = path.with_name(f"copy-{path.stem}.jpg")
        save(open_photo(path), copy, quality=70)
        planted["twice"].append({name(path), name(copy)})
    return planted


def open_photo(path: Path) -> Image.Image:
    """Returns the photo turned upright."""
    with Image.open(path) as photo:
        return ImageOps.exif_transpose(photo).convert("RGB")


def is_oblong(path: Path) -> bool:
    """Returns whether one side is at least a tenth longer than the other."""
    width, height = open_photo(path).size
    return max(width, height) >= 1.1 * min(width, height)


def save(photo: Image.Image, path: Path, *, quality: int = 95) -> None:
    """Writes a JPEG, regardless of the suffix of the path."""
    photo.save(path, "JPEG", quality=quality)


def make_report(config: PlantConfig, seed: int, folder: Path) -> "Report":
    """Trains on the others and returns the report on those held out."""
    from shardstream.ingest.commands.build import build_dataset
    from shardstream.ingest.commands.config import BuildConfig
    from shardstream.predict.inference.selection import select_all
    from shardstream.predict.metrics.gate import Limits
    from shardstream.predict.report import build_report
    from shardstream.train.config import TrainConfig
    from shardstream.train.data.dataset import load_dataset
    from shardstream.train.run import train_and_evaluate

    def build(images: str, data: str, validation: float) -> None:
        build_dataset(
            BuildConfig(
                images=folder / images,
                data=folder / data,
                validation=validation,
                image_size=config.image_size,
                keep_together=config.group,
                seed=seed,
            )
        )

    build("others", "training", validation=0.2)
    build("held-out", "planted", validation=0)
    run = folder / "run"
    options: Any = {"model": "small", "seed": seed, "epochs": config.epochs}
    train_and_evaluate(TrainConfig(data_dir=folder / "training", run=run, **options))
    info = load_dataset(folder / "planted").info
    return build_report(
        run,
        info,
        select_all("train", info.split("train").num_examples),
        compare=(),
        sampling="uniform",
        out=folder / "report",
        gallery_size=200,
        limits=Limits(),
        seed=seed,
        lang="en",
        command="",
        on_progress=lambda _: None,
    )


def named(report: "Report") -> dict[str, list[set[str]]]:
    """Returns the paths that each list of the page names."""
    import pyarrow.parquet as pq

    from shardstream.predict.findings.summary import NUM_NAMED
    from shardstream.predict.report import PARQUET

    paths = pq.read_table(report.page.with_name(PARQUET), columns=["source_path"])["source_path"].to_pylist()
    found = report.findings
    odd = found.odd_pictures[:NUM_NAMED]
    copies = found.duplicates
    pairs = [] if copies is None else [*copies.leaks, *copies.contradictions, *copies.repeats]
    return {
        "mislabelled": [{issue.entry.path} for issue in found.labels.issues[:NUM_NAMED]],
        "on its side": [{paths[one.row]} for one in odd if one.oddity == "shape"],
        "blurred": [{paths[one.row]} for one in odd if one.oddity == "blurred"],
        "twice": [{pair.one.path, pair.other.path} for pair in pairs],
    }


if __name__ == "__main__":
    main(tyro.cli(PlantConfig))
