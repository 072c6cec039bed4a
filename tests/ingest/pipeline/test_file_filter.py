import re

import pytest

from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.pipeline.file_filter import FileFilter


@pytest.mark.parametrize(
    ("glob", "matching", "other"),
    [
        ("*.png", ["a.png", "cat/old/b.png"], ["a.jpg", "a.png/b.jpg"]),
        ("blurred", ["blurred", "cat/blurred"], ["cat/blurred1", "unblurred"]),
        ("blurred/", ["cat/blurred"], []),
        ("cat/old/*", ["cat/old/a.jpg", "cat/old/deep"], ["cat/old", "dog/old/a.jpg", "big/cat/old/a.jpg"]),
        ("./cat/old", ["cat/old"], ["dog/cat/old"]),
        ("**/old/*", ["old/a.jpg", "cat/old/a.jpg", "a/b/old/c.jpg"], ["old", "cat/olds/a.jpg"]),
        ("cat/**", ["cat/a.jpg", "cat/b/c.jpg"], ["dog/a.jpg"]),
        ("IMG_????.jpg", ["IMG_0001.jpg"], ["IMG_01.jpg"]),
        ("[ab].jpg", ["a.jpg"], ["c.jpg"]),
        ("[!ab].jpg", ["c.jpg"], ["a.jpg"]),
        ("a+b(1).jpg", ["a+b(1).jpg"], ["aab1.jpg"]),
    ],
)
def test_globs_match_names_and_paths(glob, matching, other):
    excludes = FileFilter(exclude=[glob])
    assert [path for path in [*matching, *other] if excludes.excluded_by(path)] == matching


def test_what_is_included_may_be_a_folder_and_exclusion_wins():
    chosen = FileFilter(exclude=["*.png"], include=["cat", "*.jpg"])
    assert chosen.includes_below("cat/a.gif")
    assert chosen.includes_below("dog/a.jpg")
    assert not chosen.includes_below("dog/a.gif")
    assert chosen.excluded_by("cat/a.png") == "*.png"


def test_an_empty_glob_is_refused():
    with pytest.raises(ConfigError, match=re.escape("--exclude '/': an empty glob")):
        FileFilter(exclude=["/"])
