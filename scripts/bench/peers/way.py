"""Common code of these programs: arguments and timing.

Imported in the other environments too: standard library only.
"""

import argparse
import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Two wheels with the same module cv2: the second has no windows, and needs fewer libraries of the system.
OPENCV_WHEELS = ("opencv-python", "opencv-python-headless")


def opencv_wheel() -> str:
    """Returns the name of the OpenCV wheel that is installed.

    Raises:
        PackageNotFoundError: There is none.
    """
    for name in OPENCV_WHEELS:
        with contextlib.suppress(PackageNotFoundError):
            version(name)
            return name
    raise PackageNotFoundError(" or ".join(OPENCV_WHEELS))


def arguments(description: str) -> argparse.ArgumentParser:
    """Returns a parser of the arguments of all ways: PHOTOS OUT --workers N."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("photos", type=Path, help="a folder of category folders of JPEGs")
    parser.add_argument("out", type=Path, help="a folder that is not there yet")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that work at once")
    return parser


def list_photos(photos: Path) -> list[tuple[str, int]]:
    """Returns path and label of each photo, in the order of their names."""
    categories = sorted(path for path in photos.iterdir() if path.is_dir())
    return [
        (str(path), label) for label, folder in enumerate(categories) for path in sorted(folder.iterdir())
    ]


def measure(work: Callable[[], object], *packages: str) -> None:
    """Does the work and prints its times, and the versions of `packages`, as one JSON line."""
    began, cores_began = time.perf_counter(), core_secs(os.getpid())
    work()
    secs, cores = time.perf_counter() - began, core_secs(os.getpid()) - cores_began
    versions = {package: version(package) for package in packages}
    print(json.dumps({"secs": secs, "core_secs": cores, "versions": versions}), flush=True)


def core_secs(process: int) -> float:
    """Returns the CPU time of a process and all its descendants so far.

    As in proc_pid_stat(5): user and system time, its own and that of the children it has waited for. `getrusage` only
    has the latter, without the workers of a server process that is still running when the work is done.
    """
    ticks = 0
    for member in family(process):
        try:
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # Exited since it was listed.
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def family(process: int) -> Iterator[int]:
    """Yields a process and all its descendants that have not been waited for, parents first.

    Threads and processes may exit while they are listed: theirs are left out.
    """
    yield process
    tasks = Path(f"/proc/{process}/task")
    with contextlib.suppress(OSError):
        for thread in tasks.iterdir():
            with contextlib.suppress(OSError):
                children = (thread / "children").read_text().split()
                for child in children:
                    yield from family(int(child))
