import logging

import pytest
from matplotlib.ft2font import FT2Font

from shardstream.predict.output import fonts
from shardstream.predict.output.fonts import choose_label_font, find_font

KOREAN = ("음식", "실내", "실외")
ENGLISH = ("food", "interior", "exterior")


@pytest.fixture
def without_fonts(monkeypatch):
    """A machine that has only the fonts that come with matplotlib."""
    find_font.cache_clear()
    monkeypatch.setattr(fonts.font_manager, "findSystemFonts", list)
    yield
    find_font.cache_clear()


@pytest.mark.parametrize("text", ["food", "café", "Ελληνικά", "음식", "食べ物"])
def test_a_found_font_has_every_character(text):
    font = find_font(text)
    if font is None:
        pytest.skip(f"no font for {text!r} is installed")
    assert {ord(character) for character in text} <= FT2Font(str(font)).get_charmap().keys()


def test_display_names_are_drawn_where_a_font_has_them(caplog):
    if find_font("".join(KOREAN)) is None:
        pytest.skip("no font with Hangul is installed")
    assert choose_label_font(KOREAN, ENGLISH).names == list(KOREAN)
    assert caplog.messages == []


@pytest.mark.usefixtures("without_fonts")
def test_class_names_are_drawn_instead_and_one_line_says_so(caplog):
    caplog.set_level(logging.WARNING)
    lettering = choose_label_font(KOREAN, ENGLISH)
    assert lettering.names == list(ENGLISH)
    assert caplog.messages == [
        (
            "no font here has all the letters of the classes; instead of 음식, 실내, 실외 images show the class names"
            "; install a font, such as fonts-noto-cjk for Korean: apt-get install fonts-noto-cjk"
        )
    ]


@pytest.mark.usefixtures("without_fonts")
def test_numbers_are_drawn_where_even_class_names_cannot_be(caplog):
    caplog.set_level(logging.WARNING)
    lettering = choose_label_font(KOREAN, KOREAN)
    assert lettering.names == ["class 0", "class 1", "class 2"]
    assert caplog.messages == [
        (
            "no font here has all the letters of the classes; instead of 음식, 실내, 실외 images show "
            "the numbers of the classes"
            "; install a font, such as fonts-noto-cjk for Korean: apt-get install fonts-noto-cjk"
        )
    ]
    drawn = {ord(character) for character in "".join(lettering.names)}
    assert drawn <= FT2Font(str(lettering.font)).get_charmap().keys()


@pytest.mark.usefixtures("without_fonts")
def test_a_file_that_is_no_font_is_passed_over(tmp_path, monkeypatch):
    broken = tmp_path / "NotoSansKR.ttf"
    broken.write_bytes(b"not a font")
    monkeypatch.setattr(fonts.font_manager, "findSystemFonts", lambda: [str(broken)])
    assert find_font("음식") is None


@pytest.mark.usefixtures("without_fonts")
def test_one_name_without_a_font_takes_none_from_the_others(caplog):
    caplog.set_level(logging.WARNING)
    names = ["café", "음" * 300, "실내"]
    lettering = choose_label_font(names, ["coffee", "음" * 300, "interior"])
    assert lettering.names == ["café", "class 1", "interior"]
    (message,) = caplog.messages
    assert f"instead of {'음' * 40}..., 실내 images show the numbers of the classes" in message
    assert "café" not in message
