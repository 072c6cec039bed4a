"""The options of shardstream-predict. Imports nothing heavy: --help answers without TensorFlow."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.common.safe_files import refuse_link
from shardstream.predict.inference.selection import RANKED, Sampling
from shardstream.predict.page.texts.languages import Language

# As many as the page shows by default, so that every predicted picture can be looked at; the interval of
# an accuracy of 0.9 is then 8 points wide, against 21 for 32 pictures.
DEFAULT_SAMPLE = 200

# Not docstrings of the fields: there each line break would show.
_COMPARE_HELP = (
    "Other runs, whose models look at the same pictures: what they get right and RUN does not, the reverse, and "
    "whether the difference is more than chance."
)
_MIN_ACCURACY_HELP = (
    "End with exit code 3 where the accuracy is below this share, such as 0.95; the report is written all the same. "
    "The figure itself is compared; whether its interval holds the limit is said."
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PredictConfig:
    """Predicts pictures of a dataset with a trained model and writes a page of what was right and wrong.

    Of photos without categories, files or folders, it says what they are taken for: shardstream-predict RUN PHOTOS.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run folder that `shardstream-train` wrote."""
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """The dataset folder; or photos without categories: files and folders."""
    more: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="PHOTOS", help_behavior_hint="")
    ] = ()
    """More photos."""
    split: str = "validation"
    """The split to predict."""
    sample: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """How many pictures to draw; 200 where neither --batch nor --all is given."""
    sampling: Sampling = "uniform"
    """How to draw them: each equally likely, or as many of each class (stratified). The others predict the whole
    split, whose figures are reported, and show the N of highest loss (worst), the surest mistakes (confident-errors)
    or the closest decisions (borderline)."""
    batch: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """Predict the N-th batch of 32 pictures in file order, counted from 1, instead of a sample."""
    all: bool = False
    """Predict every picture of the split instead of a sample."""
    seed: int = 123
    """Decides which pictures a sample draws."""
    gallery: int = 200
    """At most this many pictures go into the page; of more, mostly wrong ones."""
    lang: Language = "en"
    """The language of the page."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """Where to write the report; by default the folder `report` inside the run folder."""
    compare: Annotated[
        tuple[Path, ...], tyro.conf.arg(metavar="RUN2 ...", help=_COMPARE_HELP, help_behavior_hint="")
    ] = ()
    min_accuracy: Annotated[
        float | None, tyro.conf.arg(metavar="SHARE", help=_MIN_ACCURACY_HELP, help_behavior_hint="")
    ] = None
    min_class_recall: Annotated[float | None, tyro.conf.arg(metavar="SHARE", help_behavior_hint="")] = None
    """The same for the recall of every class; a class without pictures does not pass."""
    show: bool = False
    """Step through the pictures in a window afterwards."""
    json: bool = False
    """Print one JSON object instead of tables."""

    def __post_init__(self) -> None:
        given = [f"--{name}" for name in ("sample", "batch") if getattr(self, name) is not None]
        given += ["--all"] if self.all else []
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} exclude one another; give one of them")
        if self.sampling != "uniform" and (self.all or self.batch is not None):
            raise ConfigError(
                f"{given[0]} draws nothing, so --sampling {self.sampling} has no use; leave one out"
            )
        for path in self.compare:
            if path == self.run or self.compare.count(path) > 1:
                raise ConfigError(f"--compare {path}: given twice; name each run once")
        for name in ("sample", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} has to be at least 1, got {value}")
        for name in ("min_accuracy", "min_class_recall"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} has to be a share from 0 to 1, such as 0.95, got {value}")
        for name in ("gallery", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"--{name} has to be at least 0, got {getattr(self, name)}")

    def check_for_photos(self) -> None:
        """Refuses options that have no meaning where nothing is known of what the photos are.

        Raises:
            ConfigError: One was given.
        """
        given = {
            "--sample": self.sample is not None,
            "--batch": self.batch is not None,
            "--sampling": self.sampling != "uniform",
            "--min-accuracy": self.min_accuracy is not None,
            "--min-class-recall": self.min_class_recall is not None,
            "--compare": bool(self.compare),
            "--show": self.show,
        }
        for option in (option for option, is_given in given.items() if is_given):
            raise ConfigError(
                f"{option} is for datasets, and {self.data} is none: photos are predicted all, and what they are "
                "is not known; leave it out"
            )

    @property
    def sample_size(self) -> int:
        """How many pictures are drawn where neither a batch nor all are asked for."""
        return DEFAULT_SAMPLE if self.sample is None else self.sample

    @property
    def gallery_size(self) -> int:
        """How many pictures the page has at most."""
        return min(self.gallery, self.sample_size) if self.sampling in RANKED else self.gallery

    @property
    def report_dir(self) -> Path:
        """The folder that the report is written into.

        Raises:
            ConfigError: It is the one in the run folder, and that is a link: what lies there may be somebody's.
        """
        if self.out is None:
            refuse_link(self.run / "report")
        return self.run / "report" if self.out is None else self.out
