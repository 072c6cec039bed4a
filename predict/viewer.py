"""Steps through the pictures in an OpenCV window."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from predict.fonts import Lettering
from predict.gallery import Shown

TITLE = "shardstream-predict"

Action = Literal["next", "back", "only wrong", "quit"]

# Letters, Escape, Enter and space; and the arrows as Qt and GTK, Windows and macOS number them.
_KEYS: Mapping[int, Action] = {
    **dict.fromkeys((ord("n"), ord(" "), 10, 13, 65363, 2555904, 63235), "next"),
    **dict.fromkeys((ord("b"), ord("p"), 8, 65361, 2424832, 63234), "back"),
    ord("w"): "only wrong",
    **dict.fromkeys((ord("q"), 27), "quit"),
}
_HELP = "n next   b back   w only wrong   q quit"

_SIDE = 640
_BANNER = 132
_PAPER, _INK, _QUIET = (255, 255, 255), (28, 32, 36), (91, 99, 107)
_RIGHT, _WRONG = (0, 99, 156), (178, 67, 0)

# How long to wait for a key before looking whether the window was closed or the process is to stop.
_POLL_MILLISECONDS = 50


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where in the list of pictures the viewer is: the number of the picture, and whether it skips right ones."""

    index: int
    only_wrong: bool


def show_pictures(pictures: Sequence[Shown], lettering: Lettering) -> None:
    """Shows one picture after the other until the user quits or closes the window.

    `display.check_display` has to have passed.
    """
    import cv2

    # OpenCV points Qt at a folder of fonts that it does not bring; Qt complains about that for every window.
    os.environ["QT_QPA_FONTDIR"] = str(lettering.font.parent)
    wrong = [not shown.prediction.right for shown in pictures]
    if not pictures:
        return
    place: Place | None = Place(0, only_wrong=False)
    # Without Qt's tool bar, whose buttons would save or zoom the drawn text.
    cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
    cv2.resizeWindow(TITLE, _SIDE, _SIDE + _BANNER)
    try:
        while place is not None:
            frame = draw_frame(pictures[place.index], lettering, counter=_counter(place, wrong))
            cv2.imshow(TITLE, np.ascontiguousarray(frame[:, :, ::-1]))  # OpenCV takes blue, green, red.
            place = step(place, _wait_for_action(), wrong)
    finally:
        cv2.destroyAllWindows()


def step(place: Place, action: Action, wrong: Sequence[bool]) -> Place | None:
    """Returns where an action leads; None is the end. Stays where nothing lies in that direction.

    Args:
        place: Where the viewer is.
        action: What the user wants.
        wrong: Of each picture whether its prediction is wrong.
    """
    match action:
        case "quit":
            return None
        case "only wrong":
            only_wrong = not place.only_wrong and any(wrong)
            # From a right picture to the next wrong one, else to the last one.
            indices = _indices(wrong, only_wrong=only_wrong)
            return Place(min((i for i in indices if i >= place.index), default=indices[-1]), only_wrong)
        case "next":
            ahead = [i for i in _indices(wrong, only_wrong=place.only_wrong) if i > place.index]
            return dataclasses.replace(place, index=min(ahead, default=place.index))
        case "back":
            behind = [i for i in _indices(wrong, only_wrong=place.only_wrong) if i < place.index]
            return dataclasses.replace(place, index=max(behind, default=place.index))


def draw_frame(shown: Shown, lettering: Lettering, *, counter: str) -> np.ndarray:
    """Returns the picture with its names under it: uint8 [height, width, 3], RGB."""
    prediction = shown.prediction
    frame = Image.new("RGB", (_SIDE, _SIDE + _BANNER), _PAPER)
    picture = Image.fromarray(shown.picture.pixels())
    scale = _SIDE / max(picture.size)
    picture = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.BICUBIC)
    frame.paste(picture, ((_SIDE - picture.width) // 2, (_SIDE - picture.height) // 2))
    draw = ImageDraw.Draw(frame)
    large, small = (ImageFont.truetype(lettering.font, size) for size in (26, 15))
    colour = _RIGHT if prediction.right else _WRONG
    draw.rectangle([0, _SIDE, _SIDE, _SIDE + 6], fill=colour)
    verdict = "right" if prediction.right else "WRONG"
    name = _fitted(lettering.names[prediction.predicted], large, 270)
    predicted = f"predicted {name}, {prediction.probability:.0%}: {verdict}"
    actual = f"actual {_fitted(lettering.names[prediction.actual], large, 480)}"
    draw.text((16, _SIDE + 14), actual, font=large, fill=_INK)
    draw.text((16, _SIDE + 50), predicted, font=large, fill=colour)
    draw.text((16, _SIDE + 98), f"{counter}      {_HELP}", font=small, fill=_QUIET)
    return np.asarray(frame)


def _fitted(name: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Returns `name`, shortened where it would be wider than `width` pixels."""
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
    return f"{indices.index(place.index) + 1} of {len(indices)}{' wrong' if place.only_wrong else ''}"


def _wait_for_action() -> Action:
    import cv2

    while True:
        action = _KEYS.get(cv2.waitKeyEx(_POLL_MILLISECONDS))
        if action is not None:
            return action
        if cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1:
            return "quit"
