"""Names that other people gave, made safe to show."""

import unicodedata

# Joiners have no effect of their own and hold together emoji and the scripts of India and Iran.
_HARMLESS = {"\u200c", "\u200d"}

# Control codes (escape sequences, newlines), formatting (right-to-left overrides) and line separators.
_UNSAFE_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def visible(name: str) -> str:
    r"""Returns `name` with every character that does something, instead of showing, written as an escape.

    A file called "a\x1b[31m.jpg" shall not colour the terminal, nor one with U+202E pretend another ending.
    """
    return "".join(_visible_character(character) for character in name)


def _visible_character(character: str) -> str:
    if character in _HARMLESS or unicodedata.category(character) not in _UNSAFE_CATEGORIES:
        return character
    return character.encode("unicode_escape").decode("ascii")
