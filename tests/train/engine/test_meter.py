import pytest

from shardstream.train.engine.meter import EpochMeter
from shardstream.train.engine.progress import Progress


class Clock:
    """A time that passes only where it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_only_the_time_inside_next_is_waiting():
    clock = Clock()

    def batches():
        for number in range(3):
            clock.now += 2.0  # Reading and decoding.
            yield number
        clock.now += 0.5  # Noticing the end.

    meter = EpochMeter(Progress(), clock)
    clock.now += 1.0  # Making the input.
    seen = []
    for batch in meter.waited_for(batches()):
        clock.now += 10.0  # The step.
        seen.append((batch, meter.secs(), meter.waiting_secs))
    assert seen == [(0, 13.0, 3.0), (1, 25.0, 5.0), (2, 37.0, 7.0)]
    assert (meter.secs(), meter.waiting_secs) == (37.5, 7.5)


def test_an_epoch_that_goes_on_has_the_times_of_its_beginning():
    clock = Clock()
    meter = EpochMeter(Progress(3, 2, train_secs=40.0, waiting_secs=30.0), clock)
    clock.now += 1.0
    assert list(meter.waited_for([])) == []
    assert (meter.secs(), meter.waiting_secs) == (41.0, 31.0)


def test_the_time_up_to_an_error_is_counted_and_the_error_passed_on():
    clock = Clock()

    def batches():
        clock.now += 2.0
        raise OSError
        yield

    meter = EpochMeter(Progress(), clock)
    with pytest.raises(OSError):
        next(meter.waited_for(batches()))
    assert meter.waiting_secs == 2.0
