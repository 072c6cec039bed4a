"""An image viewer in an OpenCV window."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shardstream.predict.output.fonts import LabelFont
from shardstream.predict.output.palette import INK, PAPER, QUIET, RIGHT, WRONG

if TYPE_CHECKING:
    from shardstream.predict.findings.gallery import Shown

TITLE = "shardstream-predict"

Action = Literal["next", "back", "only wrong", "quit"]

# Letters, Escape, Enter and space; and the arrow keys as numbered by Qt and GTK, Windows and macOS.
_KEYS: Mapping[int, Action] = {
    **dict.fromkeys((ord("n"), ord(" "), 10, 13, 65363, 2555904, 63235), "next"),
    **dict.fromkeys((ord("b"), ord("p"), 8, 65361, 2424832, 63234), "back"),
    ord("w"): "only wrong",
    **dict.fromkeys((ord("q"), 27), "quit"),
}
_HELP = "n next   b back   w only incorrect   q quit"

# Initial window size in pixels; text scales with it.
_WIDTH, _HEIGHT, _BANNER = 640, 772, 132
# Smaller frames are unreadable: the window system scales them down instead.
_MIN_WIDTH, _MIN_HEIGHT = 240, 240

# Time to wait for a key before checking whether the window was closed or the process is to stop.
_POLL_MILLISECONDS = 50


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Position of the viewer: the index of the image, and whether correct predictions are skipped."""

    index: int
    only_wrong: bool


def show_pictures(pictures: Sequence["Shown"], lettering: LabelFont) -> None:
    """Shows the images one after the other until the user quits or closes the window.

    Call `display.check_display` before.
    """
    import cv2

    # OpenCV points Qt at a font folder that it does not ship; Qt warns about that for every window.
    os.environ["QT_QPA_FONTDIR"] = str(lettering.font.parent)
    wrong = [not shown.prediction.right for shown in pictures]
    if not pictures:
        return
    place: Place | None = Place(0, only_wrong=False)
    # Without Qt's tool bar, whose buttons would save or zoom the drawn text. The frame has the shape of the window.
    cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_FREERATIO | cv2.WINDOW_GUI_NORMAL)
    cv2.resizeWindow(TITLE, _WIDTH, _HEIGHT)
    size = (_WIDTH, _HEIGHT)
    try:
        while place is not None:
            frame = draw_frame(pictures[place.index], lettering, counter=_counter(place, wrong), size=size)
            cv2.imshow(TITLE, np.ascontiguousarray(frame[:, :, ::-1]))  # OpenCV expects BGR.
            match _wait(size):
                case (width, height):
                    size = width, height
                case str() as action:
                    place = step(place, action, wrong)
    finally:
        cv2.destroyAllWindows()


def step(place: Place, action: Action, wrong: Sequence[bool]) -> Place | None:
    """Returns the place after an action; None to quit. Unchanged if there is no image in that direction.

    Args:
        place: The current place.
        action: The user's action.
        wrong: Whether the prediction of each image is incorrect.
    """
    match action:
        case "quit":
            return None
        case "only wrong":
            only_wrong = not place.only_wrong and any(wrong)
            # From a correct image to the next error, else to the last one.
            indices = _indices(wrong, only_wrong=only_wrong)
            return Place(min((i for i in indices if i >= place.index), default=indices[-1]), only_wrong)
        case "next":
            ahead = [i for i in _indices(wrong, only_wrong=place.only_wrong) if i > place.index]
            return dataclasses.replace(place, index=min(ahead, default=place.index))
        case "back":
            behind = [i for i in _indices(wrong, only_wrong=place.only_wrong) if i < place.index]
            return dataclasses.replace(place, index=max(behind, default=place.index))


def draw_frame(
    shown: "Shown", lettering: LabelFont, *, counter: str, size: tuple[int, int] = (_WIDTH, _HEIGHT)
) -> np.ndarray:
    """Returns the image with its names below: uint8 [height, width, 3], RGB.

    Args:
        shown: The image.
        lettering: Names and font.
        counter: Index and number of images, as text.
        size: Width and height in pixels.
    """
    width, height = max(size[0], _MIN_WIDTH), max(size[1], _MIN_HEIGHT)
    # As large as the narrower side allows, but at least half of the height is for the image.
    unit = min(width / _WIDTH, height / 2 / _BANNER)
    top = height - round(unit * _BANNER)
    frame = Image.new("RGB", (width, height), PAPER)
    picture = Image.fromarray(shown.picture.pixels())
    scale = min(width / picture.width, top / picture.height)
    picture = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.BICUBIC)
    frame.paste(picture, ((width - picture.width) // 2, (top - picture.height) // 2))
    _draw_banner(ImageDraw.Draw(frame), shown, lettering, counter, top=top, width=width, unit=unit)
    return np.asarray(frame)


def _draw_banner(
    draw: ImageDraw.ImageDraw,
    shown: "Shown",
    lettering: LabelFont,
    counter: str,
    *,
    top: int,
    width: int,
    unit: float,
) -> None:
    prediction = shown.prediction
    large, small = (ImageFont.truetype(lettering.font, max(8, unit * size)) for size in (26, 15))
    colour = RIGHT if prediction.right else WRONG
    draw.rectangle([0, top, width, top + 6 * unit], fill=colour)
    verdict = "correct" if prediction.right else "INCORRECT"
    name = _fitted(lettering.names[prediction.predicted], large, width - 370 * unit)
    predicted = f"predicted {name}, {prediction.probability:.0%}: {verdict}"
    actual = f"actual {_fitted(lettering.names[prediction.actual], large, width - 160 * unit)}"
    draw.text((16 * unit, top + 14 * unit), actual, font=large, fill=INK)
    draw.text((16 * unit, top + 50 * unit), predicted, font=large, fill=colour)
    draw.text((16 * unit, top + 98 * unit), f"{counter}      {_HELP}", font=small, fill=QUIET)


def _fitted(name: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Returns `name`, truncated to `width` pixels."""
    if font.getlength(name) <= width:
        return name
    shorter = name
    while shorter and font.getlength(f"{shorter}...") > width:
        shorter = shorter[:-1]
    return f"{shorter}..."


def _indices(wrong: Sequence[bool], *, only_wrong: bool) -> list[int]:
    return [i for i, is_wrong in enumerate(wrong) if is_wrong or not only_wrong]


def _counter(place: Place, wrong: Sequence[bool]) -> str:
    indices = _indices(wrong, only_wrong=place.only_wrong)
    return f"{indices.index(place.index) + 1} of {len(indices)}{' incorrect' if place.only_wrong else ''}"


def _wait(size: tuple[int, int]) -> Action | tuple[int, int]:
    """Returns the user's action, or the window's width and height once they differ from `size`."""
    import cv2

    while True:
        key = cv2.waitKeyEx(_POLL_MILLISECONDS)
        action = _KEYS.get(key + 32 if ord("A") <= key <= ord("Z") else key)  # Also with Caps Lock.
        if action is not None:
            return action
        if cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1:
            return "quit"
        _, _, width, height = cv2.getWindowImageRect(TITLE)
        if (width, height) != size and min(width, height) > 0:
            return width, height
