"""What runs tasks: a pool of worker processes behind one interface. No step of the work knows which."""

import abc
import itertools
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
            alone: What is called here for a task that was under way when a worker process died (a decoder
                crashed, memory ran out).
        """
        remaining = iter(tasks)
        waiting: dict[Future[Result], Task] = {}
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
                    result = alone(task)
                yield result

    @abc.abstractmethod
    def submit(self, function: Callable[[Task], Result], task: Task) -> Future[Result]:
        """Has a living worker run `function` on `task`."""

    @abc.abstractmethod
    def in_flight(self) -> int:
        """Returns how many tasks are under way at once: so many that no worker waits for its next one."""
