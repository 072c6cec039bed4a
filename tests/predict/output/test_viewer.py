"""Stepping as a pure function, drawing as pixels, and one real window on a virtual display."""

import io
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageGrab, features

from shardstream.predict.findings.gallery import Shown
from shardstream.predict.inference.thumbnails import Picture
from shardstream.predict.output.fonts import LabelFont, find_font
from shardstream.predict.output.viewer import Place, draw_frame, step

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("food", "interior", "exterior")
COLOR = (250, 120, 10)  # Red and blue differ: exchanged, they would be seen.


@pytest.fixture(name="shown")
def _shown(make_record, make_prediction):
    def shown(*, label=0, probabilities=(0.9, 0.06, 0.04), color=COLOR, size=(16, 16)):
        buffer = io.BytesIO()
        Image.new("RGB", size, color).save(buffer, "PNG")
        prediction = make_prediction(make_record(label=label), probabilities)
        return Shown(prediction, Picture("image/png", buffer.getvalue(), is_record=True))

    return shown


def lettering(names=NAMES):
    font = find_font("".join(names))
    if font is None:
        pytest.skip(f"no font for {names} is installed")
    return LabelFont(names, font)


WRONG = [True, False, True, False, False]


@pytest.mark.parametrize(
    ("place", "action", "expected"),
    [
        (Place(0, False), "next", Place(1, False)),
        (Place(4, False), "next", Place(4, False)),  # The last one stays.
        (Place(1, False), "back", Place(0, False)),
        (Place(0, False), "back", Place(0, False)),
        (Place(0, True), "next", Place(2, True)),
        (Place(2, True), "next", Place(2, True)),
        (Place(2, True), "back", Place(0, True)),
        (Place(1, False), "only wrong", Place(2, True)),
        (Place(3, False), "only wrong", Place(2, True)),  # None ahead: the last wrong one.
        (Place(2, True), "only wrong", Place(2, False)),
        (Place(3, False), "quit", None),
    ],
)
def test_stepping(place, action, expected):
    assert step(place, action, WRONG) == expected


def test_only_wrong_does_nothing_where_all_are_right():
    assert step(Place(1, False), "only wrong", [False] * 3) == Place(1, False)


def test_the_picture_is_drawn_in_its_colors(shown):
    frame = draw_frame(shown(), lettering(), counter="1 of 1")
    assert frame.dtype == np.uint8
    assert (frame[:640, :640] == COLOR).all()


def test_a_picture_that_is_not_square_keeps_its_shape(shown):
    frame = draw_frame(shown(size=(32, 16)), lettering(), counter="1 of 1")
    assert (frame[160:480] == COLOR).all()
    assert (frame[:150] == 255).all()
    assert (frame[490:630] == 255).all()


def ink(frame):
    """Returns the number of pixels under the picture that are not paper."""
    return int((frame[650:] < 128).any(axis=2).sum())


def test_names_are_drawn_and_the_wrong_one_otherwise_than_the_right_one(shown):
    right = draw_frame(shown(), lettering(), counter="1 of 2")
    wrong = draw_frame(shown(label=1), lettering(), counter="1 of 2")
    assert ink(right) > 1000
    assert tuple(right[642, 5]) == (0, 99, 156)
    assert tuple(wrong[642, 5]) == (178, 67, 0)
    assert (right[650:] != wrong[650:]).any()


def test_korean_names_are_letters_not_boxes(shown):
    drawn = [
        draw_frame(shown(), lettering((name, "실내", "실외")), counter="1 of 1") for name in ("음식", "사람")
    ]
    # Boxes would look alike.
    assert (drawn[0][650:] != drawn[1][650:]).any()


def test_a_long_name_does_not_push_the_verdict_out_of_the_window(shown):
    def verdict(name):
        return draw_frame(shown(), lettering((name, "b", "c")), counter="1 of 1")[690:730, :630]

    assert (verdict("a" * 300) != verdict("a" * 300 + "b")).sum() == 0
    assert (verdict("a" * 300)[:, 600:] == 255).all()


VIEW = """
import io
from types import SimpleNamespace

from PIL import Image

from shardstream.predict.output.fonts import choose_label_font
from shardstream.predict.inference.thumbnails import Picture
from shardstream.predict.output.viewer import show_pictures

def shown(color, predicted):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), color).save(buffer, "PNG")
    prediction = SimpleNamespace(actual=0, predicted=predicted, probability=0.9, right=predicted == 0)
    return SimpleNamespace(prediction=prediction, picture=Picture("image/png", buffer.getvalue(), is_record=True))

pictures = [shown((250, 120, 10), 1), shown((10, 120, 250), 0), shown((200, 10, 200), 1)]
show_pictures(pictures, choose_label_font(["음식", "실내"], ["food", "interior"]))
"""
ORANGE, BLUE, PURPLE = (250, 120, 10), (10, 120, 250), (200, 10, 200)


@pytest.fixture
def virtual_display():
    if not (shutil.which("Xvfb") and shutil.which("xdotool") and features.check("xcb")):
        pytest.skip(
            "Xvfb, xdotool, which presses keys, or a Pillow that can take screenshots is not installed"
        )
    import cv2

    if "QT" not in cv2.getBuildInformation().split("GUI:", 1)[1].splitlines()[0].upper():
        pytest.skip("this OpenCV has no windows")
    read_end, write_end = os.pipe()
    # Without -noreset the server starts afresh when a screenshot was its last client.
    server = subprocess.Popen(
        [
            "Xvfb",
            "-displayfd",
            str(write_end),
            "-screen",
            "0",
            "1000x1000x24",
            "-nolisten",
            "tcp",
            "-noreset",
        ],
        pass_fds=[write_end],
        stderr=subprocess.DEVNULL,
    )
    os.close(write_end)
    with os.fdopen(read_end) as file:
        display = f":{file.readline().strip()}"
    yield display
    server.terminate()
    server.wait(10)


def wait_for(condition, *, secs):
    end = time.monotonic() + secs
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    return condition()


def screen_holds(display, color):
    screen = np.asarray(ImageGrab.grab(xdisplay=display).convert("RGB")).astype(int)
    return int((np.abs(screen - color).max(axis=2) < 12).sum()) > 20_000


@pytest.fixture
def window(virtual_display):
    """A viewer with an orange wrong, a blue right and a purple wrong picture, in a process of its own."""
    environment = {**os.environ, "DISPLAY": virtual_display, "QT_QPA_PLATFORM": "xcb"}
    viewer = subprocess.Popen(
        [sys.executable, "-c", VIEW], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    for _ in range(6):
        painted = wait_for(lambda: screen_holds(virtual_display, ORANGE) or viewer.poll() is not None, secs=5)
        if painted:
            break
        # One start of five Qt 5 loses what the server says in the first moments, that the window is there among it,
        # and waits for that before it paints: its own log shows the gap. Who hides and shows the window is told anew.
        xdotool(virtual_display, "windowunmap --sync windowmap --sync")
    assert viewer.poll() is None, viewer.stderr.read()
    yield viewer
    viewer.kill()
    viewer.wait(30)
    viewer.stderr.close()


def xdotool(display, command):
    """Does something to the viewer's window."""
    subprocess.run(
        ["xdotool", "search", "--sync", "--name", "shardstream-predict", *command.split()],
        env={**os.environ, "DISPLAY": display},
        timeout=60,
        check=True,
    )


def test_a_real_window_shows_pictures_in_their_colors_and_obeys_keys(window, virtual_display):
    assert screen_holds(virtual_display, ORANGE), window.poll()

    def shows(color):
        return wait_for(lambda: screen_holds(virtual_display, color), secs=60)

    for key, color in [("n", BLUE), ("Left", ORANGE), ("w", ORANGE), ("Right", PURPLE), ("b", ORANGE)]:
        xdotool(virtual_display, f"windowfocus --sync key {key}")
        assert shows(color), key
    # A window of another size is drawn anew in its own pixels, and keeps the shape of the picture.
    xdotool(virtual_display, "windowsize --sync 900 500")
    assert wait_for(lambda: drawn_square(virtual_display, ORANGE), secs=60)
    xdotool(virtual_display, "windowfocus --sync key q")
    assert window.wait(60) == 0
    assert window.stderr.read() == ""


def drawn_square(display, color):
    """Returns whether what has this color on the screen is a square of the size that fits into 900 x 500."""
    screen = np.asarray(ImageGrab.grab(xdisplay=display).convert("RGB")).astype(int)
    rows, columns = np.nonzero(np.abs(screen - color).max(axis=2) < 12)
    return rows.size > 0 and np.ptp(rows) == np.ptp(columns) and 280 < np.ptp(rows) < 340


@pytest.mark.parametrize("size", [(640, 772), (900, 500), (300, 900), (50, 50), (2000, 2000)])
def test_everything_is_legible_in_a_window_of_any_shape(shown, size):
    frame = draw_frame(shown(label=1), lettering(), counter="1 of 1", size=size)
    width, height = max(size[0], 240), max(size[1], 240)
    assert frame.shape == (height, width, 3)
    orange = (frame == COLOR).all(axis=2)
    assert orange.sum() >= 0.2 * min(width, height) ** 2
    rows, columns = np.nonzero(orange)
    assert np.ptp(rows) == np.ptp(columns)
    assert (frame[rows.max() + 1 :] < 128).any(axis=2).sum() > 100  # Letters, of which none is cut off.
    assert (frame[-2:] == 255).all()
    assert (frame[int(0.95 * height) :, -2:] == 255).all()
