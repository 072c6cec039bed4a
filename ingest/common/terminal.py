"""Escapes untrusted names for a terminal, a log or a page."""

import json
import logging
import unicodedata

# Joiners are harmless, and required by emoji and by Indic and Persian scripts.
_HARMLESS = {"\u200c", "\u200d"}

# Control codes (escape sequences, newlines), formatting (right-to-left overrides) and line separators.
_UNSAFE_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def escape_control_chars(name: str) -> str:
    r"""Returns `name` with control characters escaped.

    A file called "a\x1b[31m.jpg" must not color the terminal, nor one with U+202E fake another suffix.
    """
    # Fast path: all unescaped characters except U+200C and U+200D are printable; most names have no others.
    return name if name.isprintable() else "".join(map(_visible_character, name))


def json_line(content: object) -> str:
    r"""Returns `content` as one line of JSON without control characters that affect a terminal.

    JSON's own escapes are used, so that parsers get the original names, including U+009B, U+202E and bytes of a path
    that are not UTF-8.
    """
    line = json.dumps(content, ensure_ascii=False)
    return line if line.isprintable() else "".join(map(_json_character, line))


class EscapingFormatter(logging.Formatter):
    """Formats log messages with `escape_control_chars`; tracebacks, which have several lines, stay unchanged."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: D102
        return escape_control_chars(super().formatMessage(record))


def _json_character(character: str) -> str:
    # In JSON such a character can only occur inside a string.
    return character if _visible_character(character) == character else json.dumps(character)[1:-1]


def _visible_character(character: str) -> str:
    if character in _HARMLESS or unicodedata.category(character) not in _UNSAFE_CATEGORIES:
        return character
    return character.encode("unicode_escape").decode("ascii")
