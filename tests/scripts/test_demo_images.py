import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, UnidentifiedImageError

from scripts.demo_images import __main__ as make_demo_images

COUNT = 40
SEED = 7


def run_script(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.demo_images", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def read_tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("demo") / "photos"
    result = run_script(out, "--count", COUNT, "--seed", SEED)
    assert result.returncode == 0, result.stderr
    files = read_tree(out)
    assert result.stdout == f"{len(files)} files in {out}\n"
    return files


def opens(content: bytes) -> bool:
    try:
        Image.open(io.BytesIO(content)).load()
    except (UnidentifiedImageError, OSError):
        return False
    return True


def test_drawing_again_gives_the_same_bytes(photos, tmp_path):
    run_script(tmp_path / "again", "--count", COUNT, "--seed", SEED)
    assert read_tree(tmp_path / "again") == photos


@pytest.mark.parametrize("position", [0, 5, COUNT, 2 * COUNT + 7])
def test_a_picture_depends_on_seed_category_and_number_alone(photos, position):
    name, content = make_demo_images.picture_file(SEED, COUNT, position)
    assert photos[name] == content
    assert make_demo_images.picture_file(SEED + 1, COUNT, position)[1] != content


def test_no_two_drawn_pictures_are_the_same(photos):
    drawn = [photos[make_demo_images.picture_file(SEED, COUNT, position)[0]] for position in range(3 * COUNT)]
    assert len(set(drawn)) == 3 * COUNT


def test_each_category_has_its_pictures_but_for_the_misplaced(photos):
    for position, category in enumerate(("food", "interior", "exterior")):
        inside = {name for name in photos if name.startswith(f"{category}/") and f"/{category}_" in name}
        others = {name for name in photos if f"/{category}_" in name} - inside
        assert sum("(copy)" not in name for name in inside) == COUNT - 1
        following = ("food", "interior", "exterior")[(position + 1) % 3]
        assert others == {f"{following}/{category}_0026.jpg"}


def test_sizes_and_shapes_vary(photos):
    sizes = {Image.open(io.BytesIO(content)).size for content in photos.values() if opens(content)}
    assert len({width / height for width, height in sizes}) >= 4


@pytest.mark.parametrize(("number", "orientation"), [(5, 6), (17, 8), (29, 6)])
def test_turned_pictures_are_upright_to_a_person(number, orientation):
    _, content = make_demo_images.picture_file(SEED, COUNT, number)
    stored = Image.open(io.BytesIO(content))
    assert stored.getexif()[0x0112] == orientation
    upright = np.asarray(ImageOps.exif_transpose(stored), np.int16)
    drawn = make_demo_images.draw_picture(SEED, "food", number).astype(np.int16)
    assert np.abs(upright - drawn).mean() < 8


def test_real_folders_hold_more_than_good_jpegs(photos):
    assert opens(photos["food/비빔밥.jpg"])
    assert Image.open(io.BytesIO(photos["interior/for_print.jpg"])).mode == "CMYK"
    assert Image.open(io.BytesIO(photos["exterior/png_inside.jpg"])).format == "PNG"
    cut_out = Image.open(io.BytesIO(photos["food/cut_out.png"]))
    assert cut_out.mode == "RGBA"
    assert cut_out.getextrema()[3] == (0, 255)
    assert photos["interior/veranda.jpg"] == photos["exterior/veranda.jpg"]
    assert {"food/.DS_Store", "exterior/Thumbs.db"} < photos.keys()
    assert any(name.startswith("interior/phone/") for name in photos)
    copies = [name for name in photos if "(copy)" in name]
    assert copies
    assert all(photos[name] == photos[name.replace(" (copy)", "")] for name in copies)


def test_broken_files_stay_below_one_percent(photos):
    pictures = {name: content for name, content in photos.items() if name.endswith((".jpg", ".png"))}
    broken = [name for name, content in pictures.items() if not opens(content)]
    assert broken == ["interior/cut_short.jpg"]
    assert len(broken) / len(photos) < 0.01


def test_the_usual_number_brings_three_broken_files():
    drawn = {f"food/{number}.jpg": b"" for number in range(600)}
    odd = dict(make_demo_images.odd_files(SEED, 200, drawn))
    broken = {"interior/cut_short.jpg", "food/recipe.jpg", "exterior/empty.jpg"}
    assert broken < odd.keys()
    assert not any(opens(odd[name]) for name in broken)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--count", "0"], "--count has to be 1 or more, found 0"),
        ([], "is not empty: name another folder"),
    ],
)
def test_wrong_input_is_told_and_nothing_is_written(tmp_path, arguments, sentence):
    (tmp_path / "mine.txt").write_text("mine")
    result = run_script(tmp_path, *arguments)
    assert result.returncode == 2
    assert sentence in result.stderr
    assert read_tree(tmp_path) == {"mine.txt": b"mine"}
