"""What runs tasks: a pool of worker processes behind one interface. No step of the work knows which."""

import abc
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class Engine(abc.ABC):
    """Processes that run tasks. One for the whole of a job: they stay alive between its steps."""

    # What a future raises when the processes that tried its task died.
    _lost: tuple[type[Exception], ...] = (BrokenExecutor,)

    def run_all(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        *,
        alone: Callable[[Task], Result],
    ) -> Iterator[Result]:
        """Runs `function` on each task and yields the results as they come, in any order.

        Args:
            function: Can be pickled.
            tasks: Taken one by one: there may be more of them than memory has room for.
            alone: What is called here, in a thread, for a task whose worker process died (a decoder crashed, memory ran
                out); the others go on meanwhile.
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
        """Has a living worker run `function` on `task`."""

    @abc.abstractmethod
    def in_flight(self) -> int:
        """Returns how many tasks are under way at once: so many that no worker waits for its next one."""


def _in_thread(function: Callable[[Task], Result], task: Task) -> Future[Result]:
    """Calls `function` in a thread that this process does not wait for at its end."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(function(task))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
