"""Finds words that an engineer would not look for: `python -m scripts.check_words`, run by scripts/check.

Comments and strings of Python, and all of the other text files that git knows, are searched. Names in code are not:
a name is changed with everything that uses it.
"""

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

# What to search for, and what to write instead.
WORDS = {
    r"mend(s|ed|ing)?": "fix or repair",
    r"reckon(s|ed|ing)?": "estimate",
    r"taken for": "predicted as, read as or treated as",
    r"no number": "NaN, or not a number",
    r"whole files?": "complete file, or the content of the file",
    r"passed over": "skipped",
    r"se(es?|en|eing) to it": "ensure",
    r"(likeliest|surest)": "most probable, or most confident",
    r"put it beside": "choose a path outside",
    r"spelt": "spelled",
    r"colou(r|rs|red|rless)": "color",
    r"gr[e]y": "gray",
    r"neighbou(r|rs|ring)": "neighbor",
    r"behaviou(r|rs)": "behavior",
    r"centre[sd]?": "center",
    r"(normal|synchron|optim|minim|initial|serial)is(e|es|ed|ing|ation)": "the spelling with z",
}
_PATTERNS = [(re.compile(rf"\b{word}\b", re.IGNORECASE), better) for word, better in WORDS.items()]
_SUFFIXES = frozenset({".py", ".md", ".html", ".js", ".css", ".sh", ".toml", ".yml", ".svg", ""})
# This list itself, and its test.
_EXEMPT = frozenset({"scripts/check_words.py", "tests/scripts/test_check_words.py"})
_TEXT_TOKENS = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


def find_words(name: str, text: str) -> Iterator[tuple[int, str, str]]:
    """Yields line number, word and what to write instead.

    Args:
        name: Of the file; its suffix decides what is searched.
        text: Its content.
    """
    for first, piece in _python_texts(text) if name.endswith(".py") else [(1, text)]:
        for pattern, better in _PATTERNS:
            for match in pattern.finditer(piece):
                yield first + piece.count("\n", 0, match.start()), match[0], better


def _python_texts(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in _TEXT_TOKENS:
            yield token.start[0], token.string


def main(argv: Sequence[str] | None = None) -> int:
    """Searches the files of this repository, or those in `argv`; returns 1 if there is a word of the list."""
    root = Path(__file__).resolve().parents[1]
    names = list(sys.argv[1:] if argv is None else argv) or _tracked(root)
    found = 0
    for name in names:
        for line, word, better in find_words(name, (root / name).read_text(encoding="utf-8")):
            print(f"{name}:{line}: {word!r}: write {better}")
            found += 1
    return 1 if found else 0


def _tracked(root: Path) -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    return [
        name
        for name in listed.split("\0")
        if name and (root / name).is_file() and Path(name).suffix in _SUFFIXES and name not in _EXEMPT
    ]


if __name__ == "__main__":
    sys.exit(main())
