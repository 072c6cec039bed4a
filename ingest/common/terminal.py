"""Names that other people gave, made safe to show in a terminal, a log or a page."""

import json
import logging
import unicodedata

# Joiners have no effect of their own and hold together emoji and the scripts of India and Iran.
_HARMLESS = {"\u200c", "\u200d"}

# Control codes (escape sequences, newlines), formatting (right-to-left overrides) and line separators.
_UNSAFE_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def escape_control_chars(name: str) -> str:
    r"""Returns `name` with every character that does something, instead of showing, written as an escape.

    A file called "a\x1b[31m.jpg" shall not color the terminal, nor one with U+202E pretend another ending.
    """
    # Printable are all characters that stay but U+200C and U+200D; most names have no others.
    return name if name.isprintable() else "".join(map(_visible_character, name))


def json_line(content: object) -> str:
    r"""Returns `content` as one line of JSON, in which no name does anything to a terminal either.

    A name stays what it is for who reads the JSON: it has escapes of its own, and those of JSON's writer do for the
    rest, for U+009B and U+202E as much as for bytes of a path that are not UTF-8.
    """
    line = json.dumps(content, ensure_ascii=False)
    return line if line.isprintable() else "".join(map(_json_character, line))


class EscapingFormatter(logging.Formatter):
    """Writes the messages of a log with `escape_control_chars`; tracebacks, which have lines, stay as they are."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: D102
        return escape_control_chars(super().formatMessage(record))


def _json_character(character: str) -> str:
    # In a line of JSON such a character can only be inside of a string.
    return character if _visible_character(character) == character else json.dumps(character)[1:-1]


def _visible_character(character: str) -> str:
    if character in _HARMLESS or unicodedata.category(character) not in _UNSAFE_CATEGORIES:
        return character
    return character.encode("unicode_escape").decode("ascii")
