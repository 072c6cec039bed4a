"""The options of shardstream-predict. Imports nothing heavy: --help answers without TensorFlow."""

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.common.safe_files import refuse_link
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.wrong_folder import is_dataset
from shardstream.predict.inference.selection import RANKED, Sampling, Selection, choose_split, select
from shardstream.predict.page.texts.languages import Language

# As many as the page shows by default, so that every predicted image can be looked at; the interval of
# an accuracy of 0.9 is then 8 points wide, against 21 for 32 images.
DEFAULT_SAMPLE = 200
DEFAULT_GALLERY = 200
DEFAULT_SEED = 123


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PredictConfig:
    """Predicts the images of a dataset with a trained model and writes a report on the errors of both.

    DATA may also be photos without labels, files or folders, which are classified.

        shardstream-predict runs/first data/photos --all
        shardstream-predict runs/first more_photos one.jpg
    """

    option_groups: ClassVar = {
        "what to predict": (*("split", "all", "sample", "sampling", "batch", "seed", "labelled", "labels"),),
        "report": ("out", "lang", "gallery", "compare", "explain", "show"),
        "thresholds for CI": ("min_accuracy", "min_class_recall"),
        "output": ("json",),
    }

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run folder that `shardstream-train` wrote; or MODEL.keras, with model.json beside it."""
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """The dataset folder; or a photo or a folder of photos without labels."""
    more: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="PHOTO ...")] = ()
    """More photos or folders of photos."""
    labelled: bool = False
    """DATA is a test set that is not a dataset: class folders, split folders with class folders, or an archive."""
    labels: Annotated[Path | None, tyro.conf.arg(metavar="FILE.csv")] = None
    """With --labelled: a table with the class of each image, as for `shardstream-ingest build`."""
    split: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """The split to predict; by default validation, or the only one that there is."""
    sample: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """How many images to sample; 200 if neither --batch nor --all is given."""
    sampling: Sampling = "uniform"
    """uniform: every image is equally likely. stratified: equally many of every class. The others predict the whole
    split, report its metrics, and show N images: those of the highest loss (worst), the most confident errors
    (confident-errors), or the closest decisions (borderline)."""
    batch: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Predict the N-th batch of 32 images in file order, counted from 1, instead of a sample."""
    all: bool = False
    """Predict every image of the split instead of a sample."""
    seed: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """The seed of the sample; 123 if not given."""
    gallery: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """The maximum number of images on the page, incorrect ones first; 200 if not given."""
    explain: bool = True
    """Neither show the most similar training images of each image nor check the labels of the whole dataset: both need
    the features of all its images, which take minutes once and are cached."""
    lang: Language = "en"
    """The language of the page."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """The folder of the report; by default RUN/report, RUN/labelled-report with --labelled, and RUN/photos-report for
    photos. An earlier report is replaced, files of others are kept."""
    compare: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN2 ...")] = ()
    """Other runs, whose models predict the same images: which images only one of the models gets right, and whether the
    difference is statistically significant."""
    min_accuracy: Annotated[float | None, tyro.conf.arg(metavar="FRACTION")] = None
    """Exit with code 3 if the accuracy is below this threshold, such as 0.95; the report is written all the same. The
    point estimate is compared; the report says whether its interval contains the threshold."""
    min_class_recall: Annotated[float | None, tyro.conf.arg(metavar="FRACTION")] = None
    """The same for the recall of every class; a class without images fails."""
    show: bool = False
    """Step through the images in a window afterwards."""
    json: bool = False
    """Print one JSON object instead of tables."""

    def __post_init__(self) -> None:
        if is_dataset(self.run) and (self.data / "model.json").is_file():
            raise ConfigError(
                f"{self.run} is a dataset and {self.data} is a run; the run comes first: "
                f"shardstream-predict {self.data} {self.run}"
            )
        given = [f"--{name}" for name in ("sample", "batch") if getattr(self, name) is not None]
        given += ["--all"] if self.all else []
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} exclude one another; give one of them")
        if self.sampling != "uniform" and (self.all or self.batch is not None):
            raise ConfigError(
                f"{given[0]} draws nothing, so --sampling {self.sampling} has no effect; leave one out"
            )
        if self.labels is not None and not self.labelled:
            raise ConfigError("--labels goes with --labelled alone")
        if self.labelled and is_dataset(self.data):
            raise ConfigError(
                f"--labelled is for folders of images, and {self.data} is a dataset; leave it out"
            )
        if self.labelled and self.more:
            raise ConfigError("--labelled takes one folder, with the classes in it")
        folders = [path.resolve() for path in (self.run, *self.compare)]
        for path in self.compare:
            if folders.count(path.resolve()) > 1:
                raise ConfigError(f"--compare {path}: given twice; name each run once")
        for name in ("sample", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} has to be at least 1, got {value}")
        for name in ("min_accuracy", "min_class_recall"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} has to be a fraction from 0 to 1, such as 0.95, got {value}")
        for name in ("gallery", "seed"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"--{name} has to be at least 0, got {value}")

    def check_for_photos(self) -> None:
        """Refuses options that have no effect on photos, whose labels are unknown.

        Raises:
            ConfigError: One was given.
        """
        given = {
            "--split": self.split is not None,
            "--sample": self.sample is not None,
            "--all": self.all,
            "--seed": self.seed is not None,
            "--batch": self.batch is not None,
            "--sampling": self.sampling != "uniform",
            "--min-accuracy": self.min_accuracy is not None,
            "--min-class-recall": self.min_class_recall is not None,
            "--compare": bool(self.compare),
            "--show": self.show,
            "--no-explain": not self.explain,
        }
        for option in (option for option, is_given in given.items() if is_given):
            raise ConfigError(
                f"{option} is for datasets, and {self.data} holds photos without labels, which are all predicted; "
                "leave it out"
            )

    @property
    def sample_size(self) -> int:
        """How many images are drawn where neither a batch nor all are asked for."""
        return DEFAULT_SAMPLE if self.sample is None else self.sample

    @property
    def gallery_size(self) -> int:
        """How many images the page has at most."""
        size = DEFAULT_GALLERY if self.gallery is None else self.gallery
        return min(size, self.sample_size) if self.sampling in RANKED else size

    @property
    def seed_used(self) -> int:
        """What decides which images are drawn."""
        return DEFAULT_SEED if self.seed is None else self.seed

    def select(self, info: DatasetInfo) -> Selection:
        """Returns the records to predict of the dataset `info`.

        Raises:
            ConfigError, DatasetError: The split or the batch does not exist.
        """
        return select(
            info,
            choose_split(info, self.split),
            batch=self.batch,
            every_record=self.all,
            sampling=self.sampling,
            size=self.sample_size,
            seed=self.seed_used,
        )

    @property
    def report_dir(self) -> Path:
        """The folder that the report of a dataset is written into, or that of labelled images, beside the former.

        Raises:
            ConfigError: It is the one in the run folder, and that is a link: what lies there may be somebody's.
        """
        return self._folder("labelled-report" if self.labelled else "report")

    @property
    def photos_report_dir(self) -> Path:
        """The folder that the report of photos is written into: not that of a dataset, which it would replace.

        Raises:
            ConfigError: It is the one in the run folder, and that is a link.
        """
        return self._folder("photos-report")

    def _folder(self, name: str) -> Path:
        """Returns where a report goes: beside a model file its name begins with that of the file."""
        if self.out is not None:
            return self.out
        is_file = self.run.suffix == ".keras" and self.run.is_file()
        folder = self.run.with_name(f"{self.run.stem}-{name}") if is_file else self.run / name
        refuse_link(folder)
        return folder
