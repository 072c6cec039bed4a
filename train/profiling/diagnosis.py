"""What limits a training, from measured rates: arithmetic and sentences, no measuring."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

# A change that promises less is not worth a word: the measuring itself differs by as much.
_LEAST_GAIN = 1.1


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One part of the work on a picture, measured alone with all cores or the device to itself.

    Attributes:
        name: Such as "decode".
        images_per_sec: On the clock.
        core_ms: Processor time of this host for each picture, in milliseconds.
    """

    name: str
    images_per_sec: float
    core_ms: float

    @property
    def secs(self) -> float:
        """Of the clock, for each picture."""
        return 1 / self.images_per_sec

    def without(self, part: "Stage", *, name: str) -> "Stage":
        """Returns what is left of this work once `part` of it, measured alone, is taken away.

        Both are measured with an error, and the rest is never less than a hundredth.
        """
        return Stage(
            name=name,
            images_per_sec=1 / max(self.secs - part.secs, self.secs / 100),
            core_ms=max(self.core_ms - part.core_ms, self.core_ms / 100),
        )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Mode:
    """The whole pipeline with one cache tier, from its second epoch on.

    Attributes:
        cache: The tier.
        input_images_per_sec: The pipeline alone, nothing trained; None where it was not measured.
        images_per_sec: With the training; None too.
        input_wait: The share of the time in which the training waited for input; None too.
        unfit: Why it was not measured.
    """

    cache: str
    input_images_per_sec: float | None = None
    images_per_sec: float | None = None
    input_wait: float | None = None
    unfit: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StoredSmall:
    """The pictures of a sample, had they been stored at the size that the model sees.

    Attributes:
        image_size: That size.
        bytes_share: Their size, as a share of what they have now.
        decode_secs: What decoding one takes, all cores at work.
    """

    image_size: int
    bytes_share: float
    decode_secs: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """A setting that would help.

    Attributes:
        setting: What to type.
        gain: How many times as fast the training would be.
        why: A sentence with the figures that say so.
    """

    setting: str
    gain: float
    why: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Measurements:
    """All that was measured.

    Attributes:
        data_dir: The dataset.
        cache: The tier that the training would use.
        input_stages: What the cores do, in this order.
        device_stages: What the device does.
        modes: Each cache tier there is; the one called `cache` was measured.
        stored_small: None where the pictures are stored at the size that the model sees.
        shares_cores: Whether the model trains on the cores that also make its input.
        num_cores: How many this process may use.
    """

    data_dir: Path
    cache: str
    input_stages: Sequence[Stage]
    device_stages: Sequence[Stage]
    modes: Sequence[Mode]
    stored_small: StoredSmall | None
    shares_cores: bool
    num_cores: int

    @property
    def stages(self) -> list[Stage]:
        """All of them."""
        return [*self.input_stages, *self.device_stages]

    @property
    def step_secs(self) -> float:
        """What copy, augmentation and training of a picture take together."""
        return sum(stage.secs for stage in self.device_stages)

    def share(self, stage: Stage) -> float:
        """Returns the share of a stage in the time that all take, one after the other."""
        return stage.secs / sum(stage.secs for stage in self.stages)

    def mode(self, cache: str) -> Mode:
        """Returns the mode of that tier."""
        return next(mode for mode in self.modes if mode.cache == cache)

    def rate(self, input_secs: float) -> float:
        """Returns the pictures a second of a training whose input takes `input_secs` for each of them.

        On the same cores input and step take turns, however many threads there are; beside a device of its own the
        input is hidden behind the step, or the step behind the input.
        """
        if self.shares_cores:
            return 1 / (self.step_secs + input_secs)
        return 1 / max(self.step_secs, input_secs)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """What limits the training, and what would help.

    Attributes:
        bottleneck: One sentence.
        advice: The settings that would help, the best first.
        otherwise: What is left to do where there are none; empty where there are.
    """

    bottleneck: str
    advice: tuple[Advice, ...]
    otherwise: str


def diagnose(found: Measurements) -> Diagnosis:
    """Returns what limits the training of `found`, and what would help by how much."""
    advice = [*_other_caches(found), *_storing_small(found)]
    worth_it = tuple(sorted((a for a in advice if a.gain >= _LEAST_GAIN), key=lambda a: a.gain, reverse=True))
    return Diagnosis(
        bottleneck=_bottleneck(found),
        advice=worth_it,
        otherwise="" if worth_it else _otherwise(found),
    )


def _bottleneck(found: Measurements) -> str:
    mode = found.mode(found.cache)
    input_secs = 1 / _measured(mode.input_images_per_sec)
    # Read from a cache tier, none of the stages of the input is left.
    stage = max(found.input_stages, key=lambda stage: stage.secs)
    largest = f", most of it {stage.name}" if found.cache == "none" else ""
    step, share = found.step_secs, input_secs / (input_secs + found.step_secs)
    if found.shares_cores:
        if share < 0.5:
            return f"the model's step is the limit: it takes {1 - share:.0%} of the core time, the input {share:.0%}"
        return f"the input is the limit: it takes {share:.0%} of the core time{largest}"
    rates = f"the input gives {1 / input_secs:,.0f} img/s{largest}, and the model takes {1 / step:,.0f}"
    return (
        f"the model's step is the limit: {rates}"
        if step >= input_secs
        else f"the input is the limit: {rates}"
    )


def _other_caches(found: Measurements) -> list[Advice]:
    """Returns the quickest of the tiers that were measured beside the one in use: both rates are measured."""
    now = found.mode(found.cache)
    measured = [mode for mode in found.modes if mode.images_per_sec is not None]
    best = max(measured, key=lambda mode: _measured(mode.images_per_sec))
    if best is now:
        return []
    before, after = _measured(now.images_per_sec), _measured(best.images_per_sec)
    waits = [100 * _measured(mode.input_wait) for mode in (best, now)]
    why = (
        f"{after:,.0f} img/s in the place of {before:,.0f}, as measured; the training would wait "
        f"{waits[0]:.0f} % of its time for input in the place of {waits[1]:.0f} %"
    )
    return [Advice(setting=f"--cache {best.cache}", gain=after / before, why=why)]


def _storing_small(found: Measurements) -> list[Advice]:
    """Returns what storing at the model's size would bring: the pipeline as measured, less what it would save.

    That is all resizing, the difference in decoding, and reading in proportion to the bytes.
    """
    small = found.stored_small
    if small is None or found.cache != "none":
        return []
    secs = {stage.name: stage.secs for stage in found.input_stages}
    before = 1 / _measured(found.mode("none").input_images_per_sec)
    resize = secs.pop("resize", 0.0)
    after_stages = secs | {"read": secs["read"] * small.bytes_share, "decode": small.decode_secs}
    # Stages measured alone do not add up to the pipeline: what they save is taken in proportion.
    after = before * sum(after_stages.values()) / (sum(secs.values()) + resize)
    gain = found.rate(after) / found.rate(before)
    target = found.data_dir.with_name(f"{found.data_dir.name}-{small.image_size}")
    setting = f"shardstream-ingest build IMAGES {shlex.quote(str(target))} --image-size {small.image_size}"
    why = (
        f"stored at {small.image_size}x{small.image_size} a picture has {small.bytes_share:.0%} of its bytes and takes "
        f"{1000 * small.decode_secs:.2f} ms to decode, in the place of {1000 * (secs['decode'] + resize):.2f} "
        "ms to decode and resize"
    )
    return [Advice(setting=setting, gain=gain, why=why)]


def _otherwise(found: Measurements) -> str:
    now = _measured(found.mode(found.cache).images_per_sec)
    most = max(1.0, found.rate(0) / now)
    sentence = f"with input that costs nothing the training would be {most:.2f} times as fast"
    if most < _LEAST_GAIN:
        return (
            f"no input setting helps: {sentence}; another --model, a smaller --image-size or, on a GPU, "
            "mixed precision shortens the step"
        )
    if found.shares_cores:
        return f"{sentence}, but no setting that fits here saves enough; a smaller --image-size or more cores would"
    needed = sum(stage.core_ms for stage in found.input_stages) / 1000 / found.step_secs
    return f"{sentence}, for which the input needs about {needed:.0f} cores and has {found.num_cores}"


def _measured(value: float | None) -> float:
    if value is None:
        raise ValueError("the mode in use was not measured")
    return value
