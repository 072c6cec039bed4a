"""The command shardstream-predict. Loads TensorFlow only after the options are validated."""

import dataclasses
import functools
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from shardstream.ingest.common.commandline import log_to_stderr, run
from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.common.terminal import json_line
from shardstream.ingest.dataset.metadata import FILENAME as METADATA
from shardstream.predict.config import PredictConfig

PROG = "shardstream-predict"

# The only command; with an empty name, so that a run folder may have any name.
_COMMAND = ""


def run_command(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    command = shlex.join([PROG, *(sys.argv[1:] if argv is None else argv)])
    return run(
        PROG,
        {_COMMAND: (PredictConfig, functools.partial(_predict, command=command))},
        argv,
        default=_COMMAND,
    )


def _predict(config: PredictConfig, *, command: str, images: Path | None = None) -> int:
    """Reports on a dataset, or on loose photos.

    Args:
        config: The options.
        command: The command line, for the page.
        images: The source images, if the dataset was made for this report.
    """
    log_to_stderr()
    if config.labelled:
        return _predict_labelled(config, command=command)
    if not _is_dataset(config.data):
        return _predict_photos(config, command=command)
    if config.more:
        raise ConfigError(f"{config.data}: a dataset; give it alone, or photos without it")
    if config.show:
        from shardstream.predict.output.display import check_display

        check_display()  # Before the long work.

    # Errors in the options are found before TensorFlow is loaded.
    from shardstream.predict.metrics.gate import Limits, enforce
    from shardstream.predict.output.staging import check_report_folder
    from shardstream.train.data.folder import load_info

    info = load_info(config.data)
    check_report_folder(config.report_dir)
    selection = config.select(info)

    from shardstream.ingest.common.progress import progress
    from shardstream.train.startup import start_tensorflow

    start_tensorflow()
    from shardstream.predict.report import build_report

    with progress("predicting", len(selection.positions), "images") as on_progress:
        report = build_report(
            config.run,
            info,
            selection,
            compare=config.compare,
            sampling=config.sampling,
            out=config.report_dir,
            limits=Limits(accuracy=config.min_accuracy, class_recall=config.min_class_recall),
            gallery_size=config.gallery_size,
            seed=config.seed_used,
            explain=config.explain,
            lang=config.lang,
            command=command,
            images=images,
            on_progress=on_progress,
        )

    if config.json:
        print(json_line({"report": str(report.page), **report.metrics}))
    else:
        from rich.console import Console

        from shardstream.predict.output.terminal import print_report

        print_report(report, Console())
    if config.show:
        from shardstream.predict.output.viewer import show_pictures

        show_pictures(report.pictures, report.lettering)
    enforce(report.checks)  # Last: the report of a failing model is the one to read.
    return 0


def _predict_labelled(config: PredictConfig, *, command: str) -> int:
    """Makes a dataset of labelled images and reports on it."""
    from shardstream.train.runs.run_folder import open_run
    from shardstream.train.startup import start_tensorflow

    open_run(config.run).check_has_model()
    start_tensorflow()
    from shardstream.predict.labelled import labelled_dataset

    with labelled_dataset(config.run, config.data, config.labels) as (data, split):
        chosen = config.split if split is None else split
        return _predict(
            dataclasses.replace(
                config, data=data, split=chosen, labelled=False, labels=None, out=config.report_dir
            ),
            command=command,
            images=config.data,
        )


def _is_dataset(path: Path) -> bool:
    """Returns whether `path` is, or was meant to be, a dataset folder.

    That is a folder with metadata.json, or one written by TensorFlow Datasets. A folder with records and neither is an
    incomplete dataset, and a missing path is more likely a misspelt dataset than a photo: both errors say so.
    Everything else is photos.
    """
    if not path.exists():
        return True
    names = ("*.tfrecord*", "dataset_info.json", METADATA)
    return path.is_dir() and any(True for name in names for _ in path.glob(name))


def _predict_photos(config: PredictConfig, *, command: str) -> int:
    config.check_for_photos()
    from shardstream.ingest.common.progress import progress
    from shardstream.ingest.pipeline.loose_photos import find_photos
    from shardstream.train.startup import start_tensorflow

    paths = find_photos([config.data, *config.more])
    if not paths:
        raise DatasetError(f"{config.data}: no metadata.json in it, so it is no dataset, and no photos in it")
    start_tensorflow()
    from shardstream.predict.output.terminal import print_photo_report
    from shardstream.predict.photos import check_out, report_photos

    check_out(config.photos_report_dir, [config.data, *config.more])
    with progress("predicting", len(paths), "photos") as on_progress:
        report = report_photos(
            config.run,
            paths,
            out=config.photos_report_dir,
            gallery_size=config.gallery_size,
            lang=config.lang,
            command=command,
            on_progress=on_progress,
        )
    if config.json:
        print(json_line({"report": str(report.out / "index.html"), **report.metrics}))
    else:
        from rich.console import Console

        print_photo_report(report, Console())
    return 0
