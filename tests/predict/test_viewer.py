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

from predict.fonts import Lettering, find_font
from predict.gallery import Shown
from predict.pictures import Picture
from predict.viewer import Place, draw_frame, step

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("food", "interior", "exterior")
COLOUR = (250, 120, 10)  # Red and blue differ: exchanged, they would be seen.


@pytest.fixture(name="shown")
def _shown(make_record, make_prediction):
    def shown(*, label=0, probabilities=(0.9, 0.06, 0.04), colour=COLOUR, size=(16, 16)):
        buffer = io.BytesIO()
        Image.new("RGB", size, colour).save(buffer, "PNG")
        prediction = make_prediction(make_record(label=label), probabilities)
        return Shown(prediction, Picture("image/png", buffer.getvalue(), is_record=True))

    return shown


def lettering(names=NAMES):
    font = find_font("".join(names))
    if font is None:
        pytest.skip(f"no font for {names} is installed")
    return Lettering(names, font)


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


def test_the_picture_is_drawn_in_its_colours(shown):
    frame = draw_frame(shown(), lettering(), counter="1 of 1")
    assert frame.dtype == np.uint8
    assert (frame[:640, :640] == COLOUR).all()


def test_a_picture_that_is_not_square_keeps_its_shape(shown):
    frame = draw_frame(shown(size=(32, 16)), lettering(), counter="1 of 1")
    assert (frame[160:480] == COLOUR).all()
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
import io, sys
import numpy as np
from PIL import Image
from predict.fonts import Lettering, find_font
from predict.gallery import Shown
from predict.pictures import Picture
from predict.viewer import show_pictures

def shown(colour, probability):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(buffer, "PNG")
    record = Record(shard="s", position=0, label=0, source_path="a.jpg", source_sha256="", source_height=1,
                    source_width=1, encoded=buffer.getvalue(), media_type="image/png")
    shares = np.array([probability, 1 - probability], np.float32)
    top = np.argsort(-shares)
    prediction = Prediction(record=record, top_labels=top, top_probabilities=shares[top],
                            actual_probability=probability)
    return Shown(prediction, Picture("image/png", buffer.getvalue(), is_record=True))

pictures = [shown((250, 120, 10), 0.1), shown((10, 120, 250), 0.9), shown((200, 10, 200), 0.2)]
show_pictures(pictures, Lettering(["food", "interior"], find_font("foodinterior")))
"""
ORANGE, BLUE, PURPLE = (250, 120, 10), (10, 120, 250), (200, 10, 200)


@pytest.fixture
def virtual_display():
    if shutil.which("Xvfb") is None or not features.check("xcb"):
        pytest.skip("Xvfb, or a Pillow that can take screenshots, is not installed")
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


def screen_holds(display, colour):
    screen = np.asarray(ImageGrab.grab(xdisplay=display).convert("RGB")).astype(int)
    return int((np.abs(screen - colour).max(axis=2) < 12).sum()) > 20_000


@pytest.fixture
def window(virtual_display):
    """A viewer with an orange wrong, a blue right and a purple wrong picture, in a process of its own."""
    environment = {**os.environ, "DISPLAY": virtual_display, "QT_QPA_PLATFORM": "xcb"}
    # On a virtual display OpenCV's Qt maps one window of four and never paints it, whatever the program does.
    for _ in range(6):
        viewer = subprocess.Popen(
            [sys.executable, "-c", VIEW], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
        )
        painted = wait_for(lambda: screen_holds(virtual_display, ORANGE), secs=10)
        if painted or viewer.poll() is not None:
            break
        close(viewer)
    yield viewer
    close(viewer)


def close(viewer):
    viewer.kill()
    viewer.wait(10)
    viewer.stderr.close()


def test_a_real_window_shows_pictures_in_their_colours_and_obeys_keys(window, virtual_display):
    assert screen_holds(virtual_display, ORANGE), window.poll()
    if shutil.which("xdotool") is None:
        pytest.skip("the colours are right; xdotool, which presses keys, is not installed")

    def press(key):
        command = f"search --name shardstream-predict windowfocus --sync key {key}"
        subprocess.run(
            ["xdotool", *command.split()],
            env={**os.environ, "DISPLAY": virtual_display},
            timeout=10,
            check=True,
        )

    for key, colour in [("n", BLUE), ("Left", ORANGE), ("w", ORANGE), ("Right", PURPLE), ("b", ORANGE)]:
        press(key)
        assert wait_for(lambda colour=colour: screen_holds(virtual_display, colour), secs=10), key
    press("q")
    assert window.wait(10) == 0
    assert window.stderr.read() == ""
