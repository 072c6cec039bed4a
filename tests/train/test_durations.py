import pytest

from train.durations import duration


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
