"""A font of this machine that has every character of some names, so that none becomes an empty box."""

import dataclasses
import functools
import logging
from collections.abc import Sequence
from pathlib import Path

from matplotlib import font_manager, get_data_path
from matplotlib.ft2font import FT2Font

from shardstream.ingest.common.terminal import escape_control_chars

logger = logging.getLogger(__name__)

# It comes with matplotlib, so it is always there: Latin, Greek, Cyrillic, and no Hangul.
_INSTALL_HINT = "install a font, such as fonts-noto-cjk for Korean: apt-get install fonts-noto-cjk"
# Of a name in the log.
_LONGEST = 40
_FALLBACK = Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")

# Fonts that are good to read, by the beginning of their files' names; any other is the last resort.
_PREFERRED = (
    "NotoSansCJK-Regular", "NotoSansKR-Regular", "NotoSansKR", "NotoSansCJKkr-Regular", "NanumGothic.",
    "NanumBarunGothic.", "malgun.", "AppleSDGothicNeo", "AppleGothic", "UnDotum.", "baekmuk", "DroidSansFallback",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class LabelFont:
    """What to write for each class, and the font file that has all the characters for it."""

    names: Sequence[str]
    font: Path


def choose_label_font(display_names: Sequence[str], class_names: Sequence[str]) -> LabelFont:
    """Returns the display names with a font for them; of a name that no such font has, the next best that it has.

    Says in one line of the log what is drawn instead, and of which names.
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
    """Returns the font that can write the most of some names, the one that is always there if others write no more."""
    return max((_FALLBACK, *_installed()), key=lambda font: sum(_has_all(font, name) for name in names))


@functools.cache
def find_font(text: str) -> Path | None:
    """Returns the file of an installed font that has every character of `text`, or None."""
    if _has_all(_FALLBACK, text):
        return _FALLBACK
    return next((path for path in _installed() if _has_all(path, text)), None)


def _installed() -> list[Path]:
    # Not `fontManager.ttflist`: its cache on disk does not see a font that was installed after it was made.
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
    except (OSError, RuntimeError):  # Not a font, or one that FreeType cannot read.
        return frozenset()


def _few(names: Sequence[str]) -> str:
    cut = [name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..." for name in names[:5]]
    return ", ".join(cut) + (", ..." if len(names) > 5 else "")
