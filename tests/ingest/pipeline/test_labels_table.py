"""--labels: what is read from tables, and what is said of them."""

import re

import pytest

from shardstream.ingest.common.errors import ConfigError, DatasetError, LimitError
from shardstream.ingest.dataset.layout import Layout
from shardstream.ingest.dataset.split_hash import SPLIT_NAMES
from shardstream.ingest.pipeline.labels_table import guess_columns
from shardstream.ingest.pipeline.scan import scan_folder

COLUMNS = Layout(path_column="file", label_column="label")


@pytest.fixture
def photos(tmp_path):
    for path in ("a.jpg", "b.jpg", "part1/c.jpg", "part2/d.png", "part2/été.jpg"):
        (tmp_path / "photos" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / path).write_bytes(path.encode())
    return tmp_path / "photos"


def scan(photos, table, *, layout=COLUMNS, encoding="utf-8", where="labels.csv", **options):
    path = photos.parent / where
    path.write_bytes(table.encode(encoding))
    listing = scan_folder(photos, layout=layout, labels=path, **options)
    return listing, {file.path: listing.class_names[file.label] for file in listing}


@pytest.mark.parametrize(
    "rows",
    [
        "a.jpg,x\npart1/c.jpg,y",
        "a,x\nc,y",  # Without suffix, and without folder.
        "./a.jpg,x\npart1\\c.jpg,y",
        "photos/a.jpg,x\nphotos/part1/c.jpg,y",  # From the folder of the table.
        "/kaggle/input/photos/a.jpg,x\n/kaggle/input/photos/part1/c.jpg,y",
        "a.jpg, x \n\npart1/c.jpg,y\na.jpg,x",  # The same said twice.
    ],
)
def test_a_path_is_found_however_it_is_written(photos, rows):
    listing, classes = scan(photos, f"file,label\n{rows}\n")
    assert classes == {"a.jpg": "x", "part1/c.jpg": "y"}
    assert listing.skipped["in no line of labels.csv"] == 3


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp949", "cp1252"])
def test_encodings(photos, encoding):
    names = ("음식", "실내") if encoding != "cp1252" else ("thé", "crème")
    path = "part2/été.jpg" if encoding != "cp949" else "part2/d.png"
    _, classes = scan(photos, f"file,label\r\na.jpg,{names[0]}\r\n{path},{names[1]}\r\n", encoding=encoding)
    assert classes == {"a.jpg": names[0], path: names[1]}


@pytest.mark.parametrize("delimiter", [";", "\t", ","])
def test_delimiters_and_labels_are_text(photos, delimiter):
    rows = [("file", "label"), ("a.jpg", "007"), ("b.jpg", "NA"), ("part1/c.jpg", "1.0")]
    _, classes = scan(photos, "\n".join(map(delimiter.join, rows)))
    assert classes == {"a.jpg": "007", "b.jpg": "NA", "part1/c.jpg": "1.0"}


def test_splits_are_kept_as_given(photos):
    layout = Layout(path_column="file", label_column="label", split_column="part")
    listing, _ = scan(photos, "file,label,part\na.jpg,x,Training\nb.jpg,y,val\nc,y,test_set\n", layout=layout)
    assert [SPLIT_NAMES[split] for split in listing.given_splits] == ["train", "validation", "test"]


@pytest.mark.parametrize(
    ("table", "error", "sentence"),
    [
        ("name,label\na.jpg,x", ConfigError, "no column 'file' for --path-column; it has name, label"),
        ("file,file,label\na,a,x", ConfigError, "two columns 'file' for --path-column"),
        ("file,label\na.jpg,x\na.jpg,y", DatasetError, "a.jpg has two labels, 'x' (line 2) and 'y' (line 3)"),
        ("file,label\na.jpg,x\nb.jpg,x", DatasetError, "only one class (x)"),
        ("file,label\na.jpg,x\nb.jpg,", DatasetError, "line 3: no label"),
        ("file,label\na.jpg,x\nb.jpg", DatasetError, "line 3: 1 cells, fewer than its header has"),
        ("file,label\n", DatasetError, "no line with a file in it"),
        ("file,label\nq.jpg,x\nr.jpg,y", DatasetError, "2 of 2 files in"),
        ("file,label\na.jpg,x\nb.jpg,y\nlost.jpg,y", LimitError, "1 of 3 files in"),
        ('file,label\na.jpg,"x', DatasetError, "only one class"),
    ],
)
def test_one_sentence_says_what_is_wrong(photos, table, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        scan(photos, table)


def test_two_files_of_one_name_are_not_guessed_between(photos):
    (photos / "part1/d.png").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"line 3: several files in .* could be 'd.png'"):
        scan(photos, "file,label\na.jpg,x\nd.png,y")


def test_few_missing_files_are_noted(photos):
    listing, classes = scan(photos, "file,label\na.jpg,x\nb.jpg,y\nlost.jpg,y", max_missing=0.5)
    assert len(classes) == 2
    assert "lost.jpg" in listing.notes[0]


def test_usual_columns_are_guessed(photos):
    table = photos.parent / "train.csv"
    table.write_text("image_id;breed\na;x\n")
    layout = guess_columns(table, Layout())
    assert (layout.path_column, layout.label_column) == ("image_id", "breed")
    table.write_text("who,what\na,x\n")
    with pytest.raises(ConfigError, match=re.escape("which column? Give --path-column; it has who, what")):
        guess_columns(table, Layout())
