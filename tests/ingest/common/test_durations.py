import pytest

from shardstream.ingest.common.durations import Interval, duration, parse_interval, parse_secs
from shardstream.ingest.common.errors import ConfigError


@pytest.mark.parametrize(
    ("secs", "text"),
    [
        (0.84, "0.8 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.9, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_duration(secs, text):
    assert duration(secs) == text


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("10min", Interval(secs=600)),
        ("90s", Interval(secs=90)),
        ("1.5 h", Interval(secs=5400)),
        ("500steps", Interval(steps=500)),
    ],
)
def test_intervals(text, interval):
    assert parse_interval("save_every", text) == interval


@pytest.mark.parametrize("text", ["", "10", "min", "0min", "0steps", "1.5steps", "-1min", "10 days"])
def test_what_is_no_interval(text):
    with pytest.raises(
        ConfigError, match=r"^save_every must be a time or a number of steps such as 10min, 90s"
    ):
        parse_interval("save_every", text)


@pytest.mark.parametrize(("text", "secs"), [("30s", 30), ("2min", 120), ("0s", 0)])
def test_seconds(text, secs):
    assert parse_secs("grace", text) == secs


@pytest.mark.parametrize("text", ["30", "5steps", ""])
def test_what_is_no_time(text):
    with pytest.raises(ConfigError, match=r"^grace must be a time such as 30s or 2min, got"):
        parse_secs("grace", text)


def test_an_interval_is_over_by_time_or_by_steps():
    assert not Interval(secs=10).is_over(secs=9.9, steps=10**9)
    assert Interval(secs=10).is_over(secs=10, steps=0)
    assert not Interval(steps=3).is_over(secs=1e9, steps=2)
    assert Interval(steps=3).is_over(secs=0, steps=3)


@pytest.mark.parametrize("text", ["9" * 400 + "steps", "9" * 400 + "h"])
def test_more_than_a_number_can_be(text):
    with pytest.raises(ConfigError, match="save_every must be a time or a number of steps"):
        parse_interval("save_every", text)
