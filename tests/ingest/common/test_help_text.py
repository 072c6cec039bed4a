"""What --help says: every option once, with what it needs and what it is by default."""

import dataclasses
import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
import tyro

from shardstream.ingest.commands import config as ingest
from shardstream.ingest.common.help_text import commands_help, options_help, positional_names
from shardstream.predict.config import PredictConfig
from shardstream.train import config as train

COMMANDS = {
    "shardstream-ingest build": ingest.BuildConfig,
    "shardstream-ingest update": ingest.UpdateConfig,
    "shardstream-ingest verify": ingest.VerifyConfig,
    "shardstream-ingest repair": ingest.RepairConfig,
    "shardstream-ingest info": ingest.InfoConfig,
    "shardstream-train": train.TrainConfig,
    "shardstream-train doctor": train.DoctorConfig,
    "shardstream-train status": train.StatusConfig,
    "shardstream-train export": train.ExportConfig,
    "shardstream-predict": PredictConfig,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Does a thing.

    And says more about it.
    """

    option_groups: ClassVar = {"speed": ("workers", "level")}

    images: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IMAGES")]
    """The folder."""
    name: str
    """Has no
    default."""
    level: Literal["low", "high"] = "low"
    """How fast."""
    workers: int = dataclasses.field(default_factory=lambda: 3)
    """How many."""
    note: str = ""
    """A note; by default none."""
    crop: Annotated[bool, tyro.conf.arg(help="Leave images whole.")] = True
    size: int | Literal["original"] | None = None
    """A size."""
    json: bool = False
    """A switch."""


HELP = """\
usage: prog IMAGES --name TEXT [OPTIONS]

Does a thing.

And says more about it.

other commands:
  prog undo                 Does a thing.

arguments:
  IMAGES                    The folder.
  --name TEXT               Has no default.

speed:
  --workers N               How many. (default: 3)
  --level low|high          How fast. (default: low)

options:
  --note TEXT               A note; by default none.
  --no-crop                 Leave images whole.
  --size N|original         A size.
  --json                    A switch.

--config FILE.toml reads any of the options from a file; the command line wins over it."""


def test_options_are_in_their_groups_with_values_and_defaults(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # Lines are easy to read up to a width of 100.
    assert options_help("prog", Options, {"undo": Options}) == HELP


def test_a_program_of_several_commands_has_a_line_for_each():
    printed = commands_help("prog", "What it does.", {"do": Options, "undo": Options})
    assert (
        "\n  do                        Does a thing.\n  undo                      Does a thing.\n" in printed
    )


@pytest.mark.parametrize(("prog", "config_class"), COMMANDS.items())
def test_every_option_is_there_once_and_no_group_is_longer_than_two_screens(prog, config_class, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    printed = options_help(prog, config_class, {})
    for field in dataclasses.fields(config_class):
        name = field.name.replace("_", "-")
        flags = re.findall(rf"^  --(?:no-)?{name}(?= |$)", printed, re.M)
        assert len(flags) == (field.name not in positional_names(config_class))
    assert "default: )" not in printed
    assert "default: '')" not in printed
    assert max(len(group.splitlines()) for group in printed.split("\n\n")) <= 2 * 24
    assert max(map(len, printed.splitlines())) <= 86  # An example may be longer than the terminal is wide.


@pytest.mark.parametrize("config_class", COMMANDS.values())
def test_groups_name_options_that_there_are(config_class):
    grouped = [name for names in getattr(config_class, "option_groups", {}).values() for name in names]
    assert len(set(grouped)) == len(grouped)
    assert set(grouped) <= {field.name for field in dataclasses.fields(config_class)}
