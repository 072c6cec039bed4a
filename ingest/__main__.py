"""shardstream-ingest: category folders in, sharded TFRecords out."""

import json
import sys
from collections.abc import Sequence

from ingest import commandline
from ingest.config import BuildConfig, InfoConfig, VerifyConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command in `argv` and returns its exit code."""
    commands = {
        "build": (BuildConfig, _build),
        "verify": (VerifyConfig, _verify),
        "info": (InfoConfig, _info),
    }
    return commandline.run("shardstream-ingest", commands, argv, description=__doc__ or "")


def _build(config: BuildConfig) -> int:
    from ingest import tables
    from ingest.build import build_dataset

    result = build_dataset(config)
    if config.json:
        print(json.dumps(tables.build_json(result), ensure_ascii=False))
    else:
        tables.print_build(result)
    return 0


def _verify(config: VerifyConfig) -> int:
    import dataclasses

    from ingest import tables
    from ingest.metadata import DatasetInfo
    from ingest.verify import verify_dataset

    damages = verify_dataset(config.data, deep=config.deep, workers=config.workers)
    if config.json:
        print(json.dumps({"damages": [dataclasses.asdict(damage) for damage in damages]}, ensure_ascii=False))
    else:
        tables.print_damages(damages, DatasetInfo.load(config.data))
    return 1 if damages else 0


def _info(config: InfoConfig) -> int:
    from ingest import tables
    from ingest.metadata import DatasetInfo

    info = DatasetInfo.load(config.data)
    if config.json:
        print(json.dumps(tables.info_json(info), ensure_ascii=False))
    else:
        tables.print_info(info)
    return 0


if __name__ == "__main__":
    sys.exit(main())
