"""Sources of other layouts the whole way: built, updated, and what is said of them."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from shardstream.ingest.__main__ import main
from shardstream.ingest.dataset.metadata import DatasetInfo

SMALL = ("--image-size", "32", "--workers", "1", "--max-rejected", "0.5")


def build(images, data, *options):
    return main(["build", str(images), str(data), *SMALL, *options])


def rows(data):
    return {row["path"]: row for row in pq.read_table(data / "manifest.parquet").to_pylist()}


def content(data):
    return {path.name: path.read_bytes() for path in data.iterdir()}


def shards(data):
    return {path.name.split("-", 1)[1]: path.read_bytes() for path in data.glob("*.tfrecord-*")}


@pytest.fixture
def split_photos(tmp_path, photo):
    root = tmp_path / "photos"
    for number, (split, count) in enumerate((("train", 12), ("val", 4), ("test", 4))):
        for label, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                (root / split / name / f"{i}.jpg").write_bytes(photo(1000 * number + 100 * label + i))
    return root


def test_given_splits_are_kept_and_leaks_between_them_are_named(split_photos, tmp_path, capsys):
    shutil.copy(split_photos / "train/cat/1.jpg", split_photos / "val/cat/copy.jpg")
    shutil.copy(split_photos / "train/cat/2.jpg", split_photos / "test/cat/copy.jpg")
    shutil.copy(split_photos / "val/cat/3.jpg", split_photos / "test/cat/copy3.jpg")
    (split_photos / "train/wolf").mkdir()
    shutil.copy(split_photos / "train/dog/9.jpg", split_photos / "train/wolf/9.jpg")
    (split_photos / "train/dog/9.jpg").unlink()
    assert build(split_photos, tmp_path / "d", "--splits-from-folders") == 0
    found = rows(tmp_path / "d")
    names = {"train": "train", "val": "validation", "test": "test"}
    for path, row in found.items():
        assert row["split"] in {None, names[path.split("/")[0]]}
    kept = {path: row["split"] for path, row in found.items() if "copy" in path or path in LEAKS}
    assert kept == {
        "train/cat/1.jpg": None,
        "val/cat/copy.jpg": "validation",
        "train/cat/2.jpg": None,
        "test/cat/copy.jpg": "test",
        "val/cat/3.jpg": None,
        "test/cat/copy3.jpg": "test",
    }
    printed = " ".join(capsys.readouterr().out.split())
    assert "3 images are in more than one of the given splits" in printed
    assert "train/cat/1.jpg = val/cat/copy.jpg" in printed
    assert "the class wolf has no image in validation" in printed


LEAKS = ("train/cat/1.jpg", "train/cat/2.jpg", "val/cat/3.jpg")


@pytest.mark.parametrize("groups", ["near-duplicates", r"/(\d)"])
def test_groups_are_refused_where_every_split_is_given(split_photos, tmp_path, capsys, groups):
    assert build(split_photos, tmp_path / "d", "--splits-from-folders", "--keep-together", groups) == 2
    assert capsys.readouterr().err.startswith(
        f"shardstream-ingest: --keep-together {groups}: {split_photos} gives every split, and they are kept as given; "
    )


def test_validation_is_held_out_of_the_training_images_where_it_is_not_given(split_photos, tmp_path):
    shutil.rmtree(split_photos / "val")
    assert build(split_photos, tmp_path / "d", "--splits-from-folders", "--validation", "0.3") == 0
    splits = {(path.split("/")[0], row["split"]) for path, row in rows(tmp_path / "d").items()}
    assert splits == {("train", "train"), ("train", "validation"), ("test", "test")}


def test_a_test_split_alone_is_a_dataset(split_photos, tmp_path):
    shutil.rmtree(split_photos / "train")
    shutil.rmtree(split_photos / "val")
    assert build(split_photos, tmp_path / "d", "--splits-from-folders") == 0
    assert {row["split"] for row in rows(tmp_path / "d").values()} == {"test"}


def test_an_update_follows_the_layout(split_photos, tmp_path, photo):
    assert build(split_photos, tmp_path / "d", "--splits-from-folders", "--exclude", "draft*") == 0
    (split_photos / "val/cat/new.jpg").write_bytes(photo(9000))
    (split_photos / "val/cat/draft.jpg").write_bytes(photo(9001))
    assert main(["update", str(split_photos), str(tmp_path / "d"), "--workers", "1"]) == 0
    found = rows(tmp_path / "d")
    assert found["val/cat/new.jpg"]["split"] == "validation"
    assert "val/cat/draft.jpg" not in found
    scratch = tmp_path / "scratch/d"
    assert build(split_photos, scratch, "--splits-from-folders", "--exclude", "draft*") == 0
    assert content(tmp_path / "d") == content(scratch)


def test_an_update_takes_the_table_again_and_sees_what_changed_in_it(tmp_path, photo, capsys):
    (tmp_path / "photos").mkdir()
    table = tmp_path / "labels.csv"
    for number in range(20):
        (tmp_path / f"photos/{number}.jpg").write_bytes(photo(number))
    lines = [
        f"{number},{'cat' if number % 2 else 'dog'},{'val' if number < 5 else 'train'}"
        for number in range(20)
    ]
    table.write_text("\n".join(["id,label,part", *lines]))
    options = ("--labels", str(table), "--split-column", "part")
    assert build(tmp_path / "photos", tmp_path / "d", *options) == 0
    update = ["update", str(tmp_path / "photos"), str(tmp_path / "d"), "--workers", "1"]
    assert main(update) == 2
    assert "its classes came from a table; give it again with --labels FILE.csv" in capsys.readouterr().err
    lines[7] = "7,dog,val"
    table.write_text("\n".join(["id,label,part", *lines]))
    assert main([*update, "--labels", str(table)]) == 0
    row = rows(tmp_path / "d")["7.jpg"]
    assert (row["class_name"], row["split"]) == ("dog", "validation")
    assert "0 new, 0 changed, 0 gone, 1 moved to another class, 0 renamed" in capsys.readouterr().out
    lines[7] = "7,dog,train"
    table.write_text("\n".join(["id,label,part", *lines]))
    assert main([*update, "--labels", str(table)]) == 0
    assert rows(tmp_path / "d")["7.jpg"]["split"] == "train"


def test_an_update_sees_that_a_conflict_has_another_first_file_by_the_splits_of_the_table(tmp_path, photo):
    (tmp_path / "photos").mkdir()
    table = tmp_path / "labels.csv"
    for number in range(12):
        (tmp_path / f"photos/{number}.jpg").write_bytes(photo(max(number, 1)))  # 0 and 1 are the same.
    lines = [f"{number},{'ab'[number % 2]},{'val' if number > 9 else 'train'}" for number in range(12)]
    table.write_text("\n".join(["id,label,part", *lines]))
    options = ("--labels", str(table), "--split-column", "part")
    assert build(tmp_path / "photos", tmp_path / "d", *options) == 0
    assert rows(tmp_path / "d")["0.jpg"]["reason"].endswith("the same image is under other classes too")
    lines[1] = "1,b,test"
    table.write_text("\n".join(["id,label,part", *lines]))
    update = ["update", str(tmp_path / "photos"), str(tmp_path / "d"), "--workers", "1"]
    assert main([*update, "--labels", str(table), "--max-rejected", "0.5"]) == 0
    assert rows(tmp_path / "d")["0.jpg"]["reason"].endswith("first as 1.jpg")
    assert build(tmp_path / "photos", tmp_path / "scratch/d", *options) == 0
    assert content(tmp_path / "d") == content(tmp_path / "scratch/d")


def test_a_manifest_of_labels_in_a_table_is_repaired_with_the_table(tmp_path, photo, capsys):
    (tmp_path / "photos").mkdir()
    for number in range(12):
        (tmp_path / f"photos/{number}.jpg").write_bytes(photo(number))
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["id,label", *(f"{number},{'ab'[number % 2]}" for number in range(12))]))
    assert build(tmp_path / "photos", tmp_path / "d", "--labels", str(table)) == 0
    before = content(tmp_path / "d")
    (tmp_path / "d/manifest.parquet").unlink()
    repair = ["repair", str(tmp_path / "photos"), str(tmp_path / "d"), "--workers", "1"]
    assert main(repair) == 1
    assert "give it again with --labels" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert main([*repair, "--labels", str(table)]) == 0
    assert content(tmp_path / "d") == before


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
def test_an_archive_gives_the_shards_of_the_folder(photos, tmp_path, kind):
    archive = shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path, "photos")
    assert build(photos, tmp_path / "folder/d") == 0
    assert build(archive, tmp_path / "archive/d", "--work-dir", str(tmp_path / "work")) == 0
    assert shards(tmp_path / "archive/d") == shards(tmp_path / "folder/d")
    assert not list((tmp_path / "work").iterdir())
    assert not (tmp_path / "archive/d.incomplete").exists()
    assert main(["update", archive, str(tmp_path / "archive/d"), "--workers", "1"]) == 0


def test_a_refused_archive_leaves_nothing(tmp_path, photo):
    (tmp_path / "one/cat").mkdir(parents=True)
    (tmp_path / "one/cat/1.jpg").write_bytes(photo(1))
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "one")
    assert build(archive, tmp_path / "d") == 2
    assert not (tmp_path / "d.incomplete").exists()


def test_what_was_spooled_of_an_archive_goes_with_the_rest_of_the_work(photos, tmp_path):
    (photos / "food/bad.jpg").write_bytes(b"text")
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", photos)
    options = ("--image-size", "32", "--workers", "1", "--work-dir", str(tmp_path / "work"))
    assert main(["build", archive, str(tmp_path / "d"), *options]) == 3
    (units,) = (tmp_path / "work").iterdir()
    assert (units / "spool/index.json").exists()
    planted = units / "spool/notes.txt"
    planted.write_text("mine")
    assert main(["build", archive, str(tmp_path / "d"), *options, "--max-rejected", "1"]) == 0
    assert [path for path in units.rglob("*") if path.is_file()] == [planted]


def test_repair_asks_for_the_unpacked_folder(photos, tmp_path, capsys):
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", photos)
    assert build(archive, tmp_path / "d") == 0
    next((tmp_path / "d").glob("*.tfrecord-*")).unlink()
    assert main(["repair", archive, str(tmp_path / "d"), "--workers", "1"]) == 2
    assert "packed.zip: not a folder; give the folder of the images, unpacked" in capsys.readouterr().err
    assert main(["repair", str(photos), str(tmp_path / "d"), "--workers", "1"]) == 0


def test_copies_across_splits_are_leaks_and_images_of_one_kind_are_not(tmp_path, capsys):
    rng = np.random.default_rng(3)
    for number in range(40):
        scene = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(
            (160, 120), Image.Resampling.NEAREST
        )
        for name, quality in (("a", 90), ("b", 60)):
            path = tmp_path / "photos" / ("cat" if number % 2 else "dog") / f"{name}{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            scene.save(path, quality=quality)
    assert build(tmp_path / "photos", tmp_path / "d", "--validation", "0.5", "--json") == 0
    built = json.loads(capsys.readouterr().out)
    assert built["num_leaks"] >= 10
    splits = {path: row["split"] for path, row in rows(tmp_path / "d").items()}
    apart = {
        i for i in range(40) for c in ("cat", "dog") if len({splits.get(f"{c}/{x}{i}.jpg") for x in "ab"}) > 1
    }
    assert built["num_leaks"] == len(apart)
    assert main(["info", str(tmp_path / "d"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["leaks"] == built["leaks"]
    assert main(["info", str(tmp_path / "d")]) == 0
    assert f"and {len(apart) - 10:,} more" in capsys.readouterr().out or len(apart) == 10
    assert build(tmp_path / "photos", tmp_path / "e", "--keep-together", "near-duplicates", "--json") == 0
    assert json.loads(capsys.readouterr().out)["num_leaks"] == 0


def test_one_color_and_small_images_are_told_of(photos, tmp_path, capsys):
    Image.new("RGB", (60, 40), (40, 90, 200)).save(photos / "food/wall.jpg")
    assert main(["build", str(photos), str(tmp_path / "d"), "--workers", "1"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 image is of one color, or nearly: food/wall.jpg" in printed
    assert "no image is larger than 60x40, and 300x300 pixels are stored of each; --image-size 60" in printed
    assert main(["build", str(photos), str(tmp_path / "e"), "--workers", "1", "--image-size", "60"]) == 0
    assert "--image-size" not in capsys.readouterr().out
    Image.new("RGB", (30, 400), (40, 90, 200)).save(photos / "food/tall.jpg")
    assert main(["update", str(photos), str(tmp_path / "d"), "--workers", "1"]) == 0
    found = [DatasetInfo.load(tmp_path / name).largest_source_side for name in ("d", "e")]
    assert found == [400, 60]


@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_dataset_may_be_one_held_out_split(photos, tmp_path, split):
    other = {"test": "validation", "validation": "test"}[split]
    assert build(photos, tmp_path / "d", f"--{split}", "1", f"--{other}", "0") == 0
    assert {row["split"] for row in rows(tmp_path / "d").values()} == {split}
