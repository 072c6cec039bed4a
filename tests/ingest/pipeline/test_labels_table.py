"""--labels: what is read from tables, and what is said of them."""

import os
import re
from pathlib import Path

import pytest

from shardstream.ingest.common.errors import ConfigError, DatasetError, LimitError
from shardstream.ingest.dataset.layout import Layout
from shardstream.ingest.dataset.split_hash import SPLIT_NAMES
from shardstream.ingest.pipeline.scan import scan_folder
from shardstream.ingest.pipeline.table_file import guess_columns

COLUMNS = Layout(path_column="file", label_column="label")


@pytest.fixture
def photos(tmp_path):
    for path in ("a.jpg", "b.jpg", "part1/c.jpg", "part2/d.png", "part2/été.jpg"):
        (tmp_path / "photos" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / path).write_bytes(path.encode())
    return tmp_path / "photos"


def write(photos, table, *, encoding="utf-8", where="labels.csv"):
    path = photos.parent / where
    path.write_bytes(table.encode(encoding))
    return path


def huge(path):
    path.touch()
    os.truncate(path, 3 << 30)


def scan(photos, table, *, layout=COLUMNS, encoding="utf-8", where="labels.csv", **options):
    path = write(photos, table, encoding=encoding, where=where)
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


@pytest.mark.parametrize(
    "start",
    ["\n\n", ",,\n", "sep=,\n", "sep=,\r"],
)
def test_the_header_is_the_first_line_with_something_in_it(photos, start):
    end = start[-1]
    rows = ["file,label,", "a.jpg,x,", "b.jpg,y,"]
    layout = guess_columns(write(photos, start + end.join(rows)), Layout())
    assert (layout.path_column, layout.label_column) == ("file", "label")
    assert scan(photos, start + end.join(rows))[1] == {"a.jpg": "x", "b.jpg": "y"}


def test_a_table_without_a_header_does_not_lose_its_first_line(photos):
    layout = Layout(path_column="a.jpg", label_column="x")
    with pytest.raises(DatasetError, match=re.escape("its first line names the file a.jpg")):
        scan(photos, "a.jpg,x\nb.jpg,x\nc,y\n", layout=layout)


def test_numbers_to_be_predicted_are_no_classes(photos):
    for i in range(12):
        (photos / f"{i}.jpg").write_bytes(b"%d" % i)
    table = "file,label\n" + "".join(f"{i}.jpg,{i / 8}\n" for i in range(12))
    with pytest.raises(DatasetError, match=re.escape("12 different numbers for 12 files, such as 0.")):
        scan(photos, table)
    names = [str(i / 8) for i in range(12)]
    assert scan(photos, table, class_names=names)[0].class_names == tuple(names)


@pytest.mark.parametrize("class_names", [(), ("x", "y", "lost")])
def test_a_class_without_any_file_is_named(photos, class_names):
    table = "file,label\na.jpg,x\nb.jpg,y\nq.jpg,lost\n"
    with pytest.raises(DatasetError, match="class lost: none of the files is in"):
        scan(photos, table, class_names=class_names, max_missing=0.5)
    assert scan(photos, table, class_names=("y", "x"), max_missing=0.5)[0].class_names == ("y", "x")


def test_an_encoding_that_was_guessed_is_said(photos):
    rows = "file,label\na.jpg,음식\nb.jpg,실내\n"
    assert scan(photos, rows, encoding="utf-8")[0].notes == []
    assert "not in UTF-8, read as CP949" in scan(photos, rows, encoding="cp949")[0].notes[0]


def test_a_column_whose_name_is_in_the_second_encoding_is_found(photos):
    layout = Layout(path_column="fichéer", label_column="label")
    rows = "fichéer,label\na.jpg,x\nb.jpg,y\n"
    assert scan(photos, rows, encoding="cp1252", layout=layout)[1] == {"a.jpg": "x", "b.jpg": "y"}


@pytest.mark.parametrize("plant", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir, huge])
def test_what_is_no_file_is_not_waited_for(photos, plant):
    path = photos.parent / "planted.csv"
    plant(path)
    for read in (
        lambda: guess_columns(path, Layout()),
        lambda: scan_folder(photos, layout=COLUMNS, labels=path),
    ):
        with pytest.raises(ConfigError, match=re.escape(f"--labels {path}: cannot be read: ")):
            read()


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
        (
            "name,label\na.jpg,x",
            ConfigError,
            "no column 'file' for --path-column; its first line has name, label",
        ),
        ("file,file,label\na,a,x", ConfigError, "two columns 'file' for --path-column"),
        ("file,label\na.jpg,x\na.jpg,y", DatasetError, "a.jpg has two labels, 'x' (line 2) and 'y' (line 3)"),
        ("file,label\na.jpg,x\nb.jpg,x", DatasetError, "only one class (x)"),
        ("file,label\na.jpg,x\nb.jpg,", DatasetError, "line 3: no label"),
        ("file,label\na.jpg,x\nb.jpg", DatasetError, "line 3: 1 cells, fewer than its header has"),
        ("file,label\n", DatasetError, "no line with a file in it"),
        ("file,label\nq.jpg,x\nr.jpg,y", DatasetError, "2 of 2 files in"),
        ("file,label\na.jpg,x\nb.jpg,y\nlost.jpg,y", LimitError, "1 of 3 files in"),
        ('file,label\na.jpg,"x', DatasetError, "only one class"),
        ("", ConfigError, "it has no line with the names of its columns"),
        ("a.jpg,x\nb.jpg,y", ConfigError, "no column 'file'"),
        ("file,label\na.jpg,x\nb.jpg,y\nd,x y", DatasetError, "the label 'x y' is of several"),
        ("file,label\na.jpg,x\nb.jpg,x|y\nd,y", DatasetError, "the label 'x|y' is of several"),
        (f'file,label\na.jpg,x\nb.jpg,"{"y" * 999}\nz"\n', DatasetError, f"class '{'y' * 60}...'"),
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
    with pytest.raises(
        ConfigError, match=re.escape("which column? Give --path-column; its first line has who, what")
    ):
        guess_columns(table, Layout())
