import pytest

from scripts.check_words import find_words, main


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.md", "fine\nIt mends\n", [(2, "mends")]),
        ("a.md", "Mend, recommended, amend, spending", [(1, "Mend")]),
        ("a.md", "a loss that is no number", [(1, "no number")]),
        ("a.md", "it was taken\nfor this", []),
        ("scripts/x", "# Sees to it", [(1, "Sees to it")]),
        ("a.py", 'colour = 1  # A colour.\nx = f"grey {colour}"\n', [(1, "colour"), (2, "grey")]),
        ("a.py", '"""One.\n\nWhole files.\n"""\n', [(3, "Whole files")]),
        ("a.py", "def mend(reckon): pass\n", []),
        ("a.html", "<p>normalised, prise, optimisation</p>", [(1, "normalised"), (1, "optimisation")]),
    ],
)
def test_finds_words_where_people_read(name, text, found):
    # An f-string is one token before Python 3.12, so a name inside of it may be found as well.
    lines = [(line, word) for line, word, _ in find_words(name, text)]
    assert sorted(set(found)) == sorted({one for one in lines if one != (2, "colour")})


def test_a_word_is_named_with_its_place(capsys, tmp_path):
    path = tmp_path / "a.md"
    path.write_text("We reckon.\n")
    assert main([str(path)]) == 1
    assert capsys.readouterr().out == f"{path}:1: 'reckon': write estimate\n"
    path.write_text("We estimate.\n")
    assert main([str(path)]) == 0


def test_the_repository_has_none(capsys):
    assert main([]) == 0, capsys.readouterr().out
