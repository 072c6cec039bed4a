import pytest

from predict.names import visible


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("food/a b (1).jpg", "food/a b (1).jpg"),
        ("음식/김치찌개.jpg", "음식/김치찌개.jpg"),
        ("café/naïve.jpg", "café/naïve.jpg"),
        ("a\x1b[31mred.jpg", r"a\x1b[31mred.jpg"),
        ("a\nb\tc\r.jpg", r"a\nb\tc\r.jpg"),
        ("photo\u202egpj.exe", r"photo\u202egpj.exe"),
        ("a\u2066b\u200f\u2028c\ufeff", r"a\u2066b\u200f\u2028c\ufeff"),
        ("\x9b31m", r"\x9b31m"),  # The one-byte form of ESC [.
        ("👩\u200d🍳", "👩\u200d🍳"),
        ("<b>&\"'", "<b>&\"'"),  # Escaping for HTML is the template's.
    ],
)
def test_characters_that_do_something_become_escapes(name, shown):
    assert visible(name) == shown
