"""Finds an installed font with all characters of some names, so that none is drawn as an empty box."""

import dataclasses
import functools
import logging
from collections.abc import Sequence
from pathlib import Path

from matplotlib import font_manager, get_data_path
from matplotlib.ft2font import FT2Font

from shardstream.ingest.common.terminal import escape_control_chars

logger = logging.getLogger(__name__)

# Comes with matplotlib, so it is always available: Latin, Greek, Cyrillic, but no Hangul.
_INSTALL_HINT = "install a font, such as fonts-noto-cjk for Korean: apt-get install fonts-noto-cjk"
# Maximum length of a name in the log.
_LONGEST = 40
_FALLBACK = Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")

# Readable fonts, by the prefix of their file names; any other is the last resort.
_PREFERRED = (
    "NotoSansCJK-Regular", "NotoSansKR-Regular", "NotoSansKR", "NotoSansCJKkr-Regular", "NanumGothic.",
    "NanumBarunGothic.", "malgun.", "AppleSDGothicNeo", "AppleGothic", "UnDotum.", "baekmuk", "DroidSansFallback",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class LabelFont:
    """The text to draw for each class, and a font file with all its characters."""

    names: Sequence[str]
    font: Path


def choose_label_font(display_names: Sequence[str], class_names: Sequence[str]) -> LabelFont:
    """Returns the display names with a font for them; names that no such font covers are replaced.

    Logs in one line which names are replaced and by what.
    """
    shown = [escape_control_chars(name) for name in display_names]
    others = [escape_control_chars(name) for name in class_names]
    whole = find_font("".join(shown))
    if whole is not None:
        return LabelFont(shown, whole)
    font = find_font("".join(others)) or _font_of_most(shown)
    names, missing, numbered = [], [], False
    for label, (name, other) in enumerate(zip(shown, others, strict=True)):
        drawn = next((each for each in (name, other) if _has_all(font, each)), f"class {label}")
        names.append(drawn)
        if drawn != name:
            missing.append(name)
            numbered |= drawn != other
    logger.warning(
        "no font here has all the letters of the classes; instead of %s images show %s; %s",
        _few(missing),
        "the numbers of the classes" if numbered else "the class names",
        _INSTALL_HINT,
    )
    return LabelFont(names, font)


def _font_of_most(names: Sequence[str]) -> Path:
    """Returns the font that covers the most names; in case of a tie, the one that is always available."""
    return max((_FALLBACK, *_installed()), key=lambda font: sum(_has_all(font, name) for name in names))


@functools.cache
def find_font(text: str) -> Path | None:
    """Returns the file of an installed font that has every character of `text`, or None."""
    if _has_all(_FALLBACK, text):
        return _FALLBACK
    return next((path for path in _installed() if _has_all(path, text)), None)


def _installed() -> list[Path]:
    # Not `fontManager.ttflist`: its disk cache misses fonts installed later.
    return sorted(sorted(Path(path) for path in font_manager.findSystemFonts()), key=_preference)


def _preference(path: Path) -> int:
    matching = [i for i, start in enumerate(_PREFERRED) if path.name.lower().startswith(start.lower())]
    return min(matching, default=len(_PREFERRED))


def _has_all(path: Path, text: str) -> bool:
    return {ord(character) for character in text} <= _characters(path)


@functools.lru_cache(maxsize=8)
def _characters(path: Path) -> frozenset[int]:
    try:
        return frozenset(FT2Font(str(path)).get_charmap())
    except (OSError, RuntimeError):  # Not a font, or not readable by FreeType.
        return frozenset()


def _few(names: Sequence[str]) -> str:
    cut = [name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..." for name in names[:5]]
    return ", ".join(cut) + (", ..." if len(names) > 5 else "")
