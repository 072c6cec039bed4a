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
    """Returns the display names with a font for them, or the next best names that this machine can draw.

    Says in one line of the log what is drawn instead.
    """
    for names in (display_names, class_names):
        shown = [escape_control_chars(name) for name in names]
        font = find_font("".join(shown))
        if font is not None:
            if names is not display_names:
                logger.warning(
                    "no font here has the letters of %s: images show the class names; %s",
                    _few(display_names),
                    _INSTALL_HINT,
                )
            return LabelFont(shown, font)
    logger.warning(
        "no font here has the letters of %s: images show the numbers of the classes; %s",
        _few(class_names),
        _INSTALL_HINT,
    )
    return LabelFont([f"class {label}" for label in range(len(class_names))], _FALLBACK)


@functools.cache
def find_font(text: str) -> Path | None:
    """Returns the file of an installed font that has every character of `text`, or None."""
    if _has_all(_FALLBACK, text):
        return _FALLBACK
    # Not `fontManager.ttflist`: its cache on disk does not see a font that was installed after it was made.
    installed = sorted(Path(path) for path in font_manager.findSystemFonts())
    return next((path for path in sorted(installed, key=_preference) if _has_all(path, text)), None)


def _preference(path: Path) -> int:
    matching = [i for i, start in enumerate(_PREFERRED) if path.name.lower().startswith(start.lower())]
    return min(matching, default=len(_PREFERRED))


def _has_all(path: Path, text: str) -> bool:
    try:
        characters = FT2Font(str(path)).get_charmap()
    except (OSError, RuntimeError):  # Not a font, or one that FreeType cannot read.
        return False
    return all(ord(character) in characters for character in text)


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(escape_control_chars, names[:5])) + (", ..." if len(names) > 5 else "")
