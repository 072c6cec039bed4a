"""bad_records.csv of a run: the corrupt records that it skipped."""

import csv
from collections.abc import Mapping
from pathlib import Path

from shardstream.train.data.dataset import Dataset
from shardstream.train.data.record_source import Place, find_origins
from shardstream.train.data.skipping import BadRecords

# Spreadsheets interpret cells that start with these as formulas, and formulas can call programs.
_FORMULA_STARTS = ("=", "+", "-", "@")


def write_bad_records(path: Path, data: Dataset, bad_records: Mapping[str, BadRecords]) -> None:
    """Writes a row for each corrupt record: split, shard, number, source file if known, and reason."""
    rows = []
    for split, bad in bad_records.items():
        index = data.source(split, 1).index
        found = [index.locate(position) for position in bad.positions.tolist()]
        places = [Place(split, one.shard, one.number) for one in found]
        origins = find_origins(data.info, places)
        for place, reason in zip(places, bad.reasons, strict=True):
            source = origins[place].path if place in origins else ""
            filename = index.shards[place.shard].filename
            rows.append([split, filename, place.number, source, reason])
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["split", "shard", "record", "source_path", "what"])
        for row in rows:
            writer.writerow([f"'{cell}" if str(cell).startswith(_FORMULA_STARTS) else cell for cell in row])
