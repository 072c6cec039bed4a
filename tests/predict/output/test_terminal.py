import io

import pytest
from rich.console import Console

from shardstream.predict.findings.gallery import Shown
from shardstream.predict.inference.thumbnails import Picture
from shardstream.predict.output.terminal import picture_table

HOSTILE = [
    "[bold red]markup[/bold red]",
    "[/]",
    ":smile:",
    "esc\x1b[31m\x1b]0;title\x07",
    "csi\x9b2J",
    "two\nlines\r",
    "\u202egpj.exe",
]


@pytest.fixture(name="printed")
def _printed(make_record, make_prediction):
    def printed(name, *, label=0, colors=False):
        shown = Shown(
            make_prediction(make_record(name, label=label), [0.9, 0.1]),
            Picture("image/png", b"", is_record=True),
        )
        file = io.StringIO()
        console = Console(
            file=file, width=200, force_terminal=colors, color_system="standard" if colors else None
        )
        console.print(picture_table([shown], [name, "실내"]))
        return file.getvalue()

    return printed


@pytest.mark.parametrize("name", HOSTILE)
def test_names_do_nothing_to_the_terminal(printed, name):
    text = printed(name)
    assert len(text.splitlines()) == 2
    assert not set(text) & set("\x1b\x07\x9b\r\u202e")
    for part in ("markup", "smile", "31m", "2J", "lines", "gpj.exe"):
        assert text.count(part) == (3 if part in name else 0)


def test_markup_and_emoji_codes_are_shown_as_they_are(printed):
    assert "[bold red]markup[/bold red]" in printed(HOSTILE[0])
    assert ":smile:" in printed(":smile:")


def test_the_only_escapes_are_our_own_colors(printed):
    text = printed("a.jpg", label=1, colors=True)
    assert "\x1b[1;31mINCORRECT\x1b[0m" in text


def test_wrong_is_a_word_not_only_a_color(printed):
    assert printed("a.jpg").splitlines()[1].startswith("correct")
    assert printed("a.jpg", label=1).splitlines()[1].startswith("INCORRECT")
