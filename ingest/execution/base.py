"""The interface of the engines: pools of worker processes. The steps of a job do not depend on the engine."""

import abc
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class Engine(abc.ABC):
    """Worker processes that run tasks. A job has one engine, whose processes stay alive between steps."""

    # Exceptions of a future whose worker processes died.
    _lost: tuple[type[Exception], ...] = (BrokenExecutor,)

    def run_all(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        *,
        alone: Callable[[Task], Result],
    ) -> Iterator[Result]:
        """Runs `function` on each task and yields the results in order of completion.

        Args:
            function: A function that can be pickled.
            tasks: Consumed lazily: all of them together may not fit into memory.
            alone: Called in a thread of this process for a task whose worker died (decoder crash, out of memory); other
                tasks continue meanwhile.
        """
        remaining = iter(tasks)
        waiting: dict[Future[Result], Task] = {}
        retried: set[Future[Result]] = set()
        while True:
            for task in itertools.islice(remaining, max(0, self.in_flight() - len(waiting))):
                waiting[self.submit(function, task)] = task
            if not waiting:
                return
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                task = waiting.pop(future)
                try:
                    result = future.result()
                except self._lost:
                    if future in retried:
                        raise
                    retry = _in_thread(alone, task)
                    waiting[retry] = task
                    retried.add(retry)
                    continue
                finally:
                    retried.discard(future)
                yield result

    @abc.abstractmethod
    def submit(self, function: Callable[[Task], Result], task: Task) -> Future[Result]:
        """Submits `task` to a live worker, which runs `function` on it."""

    @abc.abstractmethod
    def in_flight(self) -> int:
        """Returns how many tasks to keep in flight, so that no worker waits for its next task."""


def _in_thread(function: Callable[[Task], Result], task: Task) -> Future[Result]:
    """Calls `function` in a daemon thread, which does not block the exit of this process."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(function(task))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
