import json
import logging

import pytest

from shardstream.ingest.common.terminal import EscapingFormatter, escape_control_chars, json_line


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("food/a b (1).jpg", "food/a b (1).jpg"),
        ("음식/김치찌개.jpg", "음식/김치찌개.jpg"),
        ("café/naïve.jpg", "café/naïve.jpg"),
        ("a\x1b[31mred.jpg", r"a\x1b[31mred.jpg"),
        ("a\nb\tc\r.jpg", r"a\nb\tc\r.jpg"),
        ("photo\u202egpj.exe", r"photo\u202egpj.exe"),
        ("a\u2066b\u200f\u2028c\ufeff", r"a\u2066b\u200f\u2028c\ufeff"),
        ("\x9b31m", r"\x9b31m"),  # The one-byte form of ESC [.
        ("👩\u200d🍳", "👩\u200d🍳"),
        ("<b>&\"'", "<b>&\"'"),  # Escaping for HTML is the template's.
    ],
)
def test_characters_that_do_something_become_escapes(name, shown):
    assert escape_control_chars(name) == shown


@pytest.mark.parametrize(
    "name",
    [
        "음식 <b>&\"'",
        "a\x1b[31m\x9b31m",
        "photo\u202egpj.exe",
        "a\nb\\",
        "👩\u200d🍳",
        "\U000e0041",
        "\udc80",
    ],
)
def test_json_keeps_every_name_and_shows_nothing_that_acts(name):
    line = json_line({"name": [name, 1]})
    assert json.loads(line) == {"name": [name, 1]}
    assert escape_control_chars(line) == line
    assert json_line("음식") == '"음식"'


def test_a_log_writes_escapes_and_keeps_the_lines_of_a_traceback():
    try:
        raise ValueError("x")
    except ValueError as error:
        found = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("a", logging.WARNING, "f.py", 1, "%s is odd", ("a\x1b[2J\n",), found)
    written = EscapingFormatter().format(record)
    assert written.startswith(r"a\x1b[2J\n is odd" + "\nTraceback (most recent call last):\n")
