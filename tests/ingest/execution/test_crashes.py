"""A worker that dies or hangs at an item: the item is left out, the others are done."""

import dataclasses
import os
import signal
import time
from pathlib import Path

import pytest

from shardstream.ingest.common.errors import MachineError
from shardstream.ingest.execution.crashes import AttemptLog, find_crashing_item, run_isolated
from shardstream.ingest.execution.factory import open_engine


@dataclasses.dataclass(frozen=True)
class Items:
    """Numbers to return; the process dies at some."""

    log: Path
    numbers: tuple[int, ...]
    deadly: frozenset[int]
    excluded: frozenset[int] = frozenset()


def do(items: Items) -> list[int]:
    done = []
    with AttemptLog(items.log) as attempts:
        for item, number in enumerate(items.numbers):
            if item in items.excluded:
                continue
            attempts.note(item)
            if number in items.deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(number)
    return done


def without(items: Items, excluded: frozenset[int]) -> Items:
    return dataclasses.replace(items, excluded=excluded)


def alone(items: Items) -> list[int]:
    return run_isolated(do, items, log=items.log, without=without)


def test_items_that_kill_their_process_are_left_out_and_all_others_done(tmp_path):
    tasks = [
        Items(tmp_path / str(task), tuple(range(10 * task, 10 * task + 10)), frozenset({3, 7, 25}))
        for task in range(4)
    ]
    with open_engine("local", workers=2) as engine:
        done = sorted(number for result in engine.run_all(do, tasks, alone=alone) for number in result)
    assert done == sorted(set(range(40)) - {3, 7, 25})
    assert not list(tmp_path.iterdir())


def dies_at_once(items: Items) -> list[int]:
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def test_a_process_that_dies_at_no_item_ends_the_job(tmp_path):
    items = Items(tmp_path / "log", (1, 2), frozenset())
    with pytest.raises(MachineError, match="died twice between files"):
        run_isolated(dies_at_once, items, log=items.log, without=without)


def nap(secs: float) -> float:
    time.sleep(secs)
    return secs


def test_others_go_on_while_a_task_is_done_alone(tmp_path):
    """The task that kills its worker is only given up once all others are done."""
    items = Items(tmp_path / "log", (1,), frozenset({1}))
    finished: list[object] = []

    def wait_for_others(task: object) -> object:
        while len(finished) < 20:
            time.sleep(0.01)
        return alone(items)

    with open_engine("local", workers=2) as engine:
        tasks = [items, *[0.0] * 20]
        results = engine.run_all(do_or_nap, tasks, alone=wait_for_others)
        finished.extend(results)
    assert finished[-1] == []


def do_or_nap(task: Items | float) -> object:
    return do(task) if isinstance(task, Items) else nap(task)


@pytest.mark.parametrize("content", [b"", b"abc", None])
def test_a_log_that_says_nothing_names_no_item(tmp_path, content):
    path = tmp_path / "log"
    if content is not None:
        path.write_bytes(content)
    assert find_crashing_item(path) is None
