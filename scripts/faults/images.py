"""Processes thousands of corrupted images and reports violations by ingest, if any.

    python -m scripts.faults.images [ODD] [--count 20000] [--seed 1]

Each image of ODD, or of a few drawn here in all formats, is corrupted in one of eight ways and processed twice,
for `--image-size original` and 128, in worker processes. Violations are: a worker that dies, one that takes more than
10 seconds or more than 1 GB of memory, an unexpected exception, and an accepted image that TensorFlow cannot decode or
finds to be of another size. The offending images are written to --out. Prints a table and one JSON line; exits with 1
if there was any violation.
"""

import collections
import dataclasses
import json
import multiprocessing
import os
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import tyro

from scripts.faults.mutations import MUTATIONS, Mutated, Source, draw_sources, load_sources, mutate

MAX_SECS = 10
MAX_BYTES = 1_000_000_000
VERDICTS = ("ok", "repaired", "rejected")
SIZES = {"original": None, "128": 128}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CampaignConfig:
    """Judges thousands of broken images."""

    images: tyro.conf.Positional[Path | None] = None
    """A folder of images to break; without it a few are drawn."""
    count: int = 20_000
    """How many to break."""
    seed: int = 1
    """Another seed, other broken images."""
    workers: int = len(os.sched_getaffinity(0))
    """Processes."""
    out: Path = Path("fault_images")
    """Where to put images that something went wrong with."""


class Reply(NamedTuple):
    """Result of a worker for one image at one size.

    Attributes:
        verdict: As in `shardstream.ingest.images.process.judge`.
        reason: The same.
        stored: The same.
        size: The same.
        secs: Duration.
        peak_bytes: Peak resident memory of the worker in this time.
    """

    verdict: str
    reason: str
    stored: bytes
    size: tuple[int, int]
    secs: float
    peak_bytes: int


class Fault(NamedTuple):
    """A violation, with its image."""

    number: int
    what: str


def main(config: CampaignConfig) -> int:
    """Runs the campaign, prints a table and one JSON line, and returns the exit code."""
    sources = load_sources(config.images) if config.images else draw_sources()
    campaign = Campaign(config, sources)
    threads = [threading.Thread(target=campaign.work, args=(first,)) for first in range(config.workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    campaign.tensorflow.close()
    campaign.print_table()
    for fault in sorted(campaign.faults):
        print(f"image {fault.number}: {fault.what}", file=sys.stderr)
    print(json.dumps(campaign.describe()))
    return 1 if campaign.faults else 0


class Campaign:
    """The images to corrupt, and the results."""

    def __init__(self, config: CampaignConfig, sources: list[Source]) -> None:
        self.config = config
        self.sources = sources
        self.counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self.faults: list[Fault] = []
        self.most_bytes = 0
        self.most_secs = 0.0
        self.num_decoded = 0
        self.tensorflow = Child(decode_for_ever)
        self._lock = threading.Lock()

    def work(self, first: int) -> None:
        """Processes every n-th image, in a worker that is replaced when it dies."""
        worker = Child(judge_for_ever)
        for number in range(first, self.config.count, self.config.workers):
            image = mutate(self.sources, self.config.seed, number)
            for size in SIZES:
                reply = worker.ask((image.data, image.suffix, SIZES[size]), MAX_SECS)
                if isinstance(reply, Reply):
                    self._note(number, image, size, reply)
                    continue
                self._blame(number, image, f"{image.kind}, size {size}: the worker {reply}")
                worker = Child(judge_for_ever)
        worker.close()

    def _note(self, number: int, image: Mutated, size: str, reply: Reply) -> None:
        with self._lock:
            if size == "original":
                self.counts[image.kind, reply.verdict] += 1
            self.most_bytes = max(self.most_bytes, reply.peak_bytes)
            self.most_secs = max(self.most_secs, reply.secs)
            if reply.verdict != "rejected":
                self.num_decoded += 1
                problem = self.tensorflow.ask((reply.stored, reply.size), 60)
                if problem:
                    self._blame(number, image, f"{image.kind}, size {size}: TensorFlow: {problem}")
        if reply.reason.startswith("unforeseen"):
            self._blame(number, image, f"{image.kind}, size {size}: {reply.reason}")
        if reply.peak_bytes > MAX_BYTES:
            what = f"{reply.peak_bytes / 1e9:.2f} GB, {reply.verdict} {reply.reason}"
            self._blame(number, image, f"{image.kind}, size {size}: {what}")

    def _blame(self, number: int, image: Mutated, what: str) -> None:
        self.faults.append(Fault(number, what))
        self.config.out.mkdir(parents=True, exist_ok=True)
        (self.config.out / f"{number}{image.suffix}").write_bytes(image.data)

    def print_table(self) -> None:
        """Prints the number of images per result, by kind of corruption."""
        print(f"| broken by | {' | '.join(VERDICTS)} |")
        print("|---|---|---|---|")
        for kind in MUTATIONS:
            print(f"| {kind} | {' | '.join(str(self.counts[kind, verdict]) for verdict in VERDICTS)} |")

    def describe(self) -> dict[str, object]:
        """Returns the results as JSON values."""
        return {
            "count": self.config.count,
            "seed": self.config.seed,
            "sources": len(self.sources),
            "decoded_by_tensorflow": self.num_decoded,
            "most_secs": round(self.most_secs, 2),
            "most_bytes": self.most_bytes,
            "faults": [fault.what for fault in sorted(self.faults)],
        }


class Child:
    """A process that answers requests one by one."""

    def __init__(self, answer_for_ever) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=answer_for_ever, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._connection.recv()  # Imports are complete.

    def ask(self, question: object, max_secs: float) -> object:
        """Returns the answer, or a description of how the process ended without one."""
        try:
            self._connection.send(question)
            if self._connection.poll(max_secs):
                return self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            return f"died with exit code {self._process.exitcode}"
        self.close()
        return f"took more than {max_secs} s"

    def close(self) -> None:
        """Kills the process."""
        self._process.kill()
        self._process.join()


def judge_for_ever(questions: Connection) -> None:
    """Answers (data, suffix, size) with a Reply.

    Memory is the peak resident size while one image is processed. A limit on the address space would include memory
    that is reserved and never touched, such as the buffer for the largest possible JPEG; it is set here only to
    protect the machine.
    """
    import resource

    from shardstream.ingest.images.process import process_image
    from shardstream.ingest.images.settings import ImageSettings

    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff reports every invalid tag.
    questions.send(None)
    while True:
        data, suffix, size = questions.recv()
        Path("/proc/self/clear_refs").write_text("5")  # Resets the peak.
        began = time.perf_counter()
        settings = ImageSettings(size=size, resize="stretch", encoding="jpeg", quality=95)
        judged = process_image(data, suffix, image=settings, max_pixels=100_000_000)
        secs = time.perf_counter() - began
        questions.send(Reply(judged.verdict, judged.reason, judged.stored, judged.size, secs, peak_bytes()))


def peak_bytes() -> int:
    """Returns the peak resident memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def decode_for_ever(questions: Connection) -> None:
    """Answers (encoded, (height, width)) with the errors that TensorFlow finds, in words; empty if none."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    tf.zeros(1)
    questions.send(None)
    while True:
        encoded, size = questions.recv()
        try:
            found = tuple(tf.io.decode_image(encoded, channels=3, expand_animations=False).shape)
        except tf.errors.InvalidArgumentError as error:
            questions.send(str(error)[:200])
        else:
            questions.send("" if found == (*size, 3) else f"{found}, expected {(*size, 3)}")


if __name__ == "__main__":
    sys.exit(main(tyro.cli(CampaignConfig)))
