"""The run folder: what is where, and how it is written so that nothing half-written looks whole."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ingest.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """All options as they were used, and the versions."""
        return self.path / "config.json"

    @property
    def best_model(self) -> Path:
        """The model of the epoch with the lowest validation loss."""
        return self.path / "best.keras"

    @property
    def last_model(self) -> Path:
        """The model as training left it."""
        return self.path / "last.keras"

    @property
    def model_info(self) -> Path:
        """What is needed to use the models; there only if `best.keras` is."""
        return self.path / "model.json"

    @property
    def history(self) -> Path:
        """A row for every epoch."""
        return self.path / "history.csv"

    @property
    def curves(self) -> Path:
        """Loss and accuracy over the epochs, drawn."""
        return self.path / "curves.png"

    @property
    def logs(self) -> Path:
        """TensorBoard's."""
        return self.path / "logs"

    def check(self) -> None:
        """Sees to it that a new run overwrites nothing.

        What a run left that ended before it had a model may be overwritten.

        Raises:
            ConfigError: There is a run, or something that is none.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path}: a file; choose another --run")
        if self.model_info.exists() or self.best_model.exists():
            raise ConfigError(f"{self.path}: holds a run already; choose another --run or remove it")
        if self.path.is_dir() and any(self.path.iterdir()) and not self.config.exists():
            raise ConfigError(f"{self.path}: holds files that are no run; choose another --run")

    def create(self, config: Mapping[str, Any]) -> None:
        """Makes the folder and writes `config` into it."""
        self.path.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.logs, ignore_errors=True)
        for path in (self.history, self.curves, self.last_model):
            path.unlink(missing_ok=True)
        write_json(self.config, config)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `content` to `path`, whole or not at all."""
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    write_beside(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` make a file beside `path`, with the same suffix, and renames it to `path`."""
    beside = path.with_name(f".{path.stem}.incomplete{path.suffix}")
    try:
        write(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
