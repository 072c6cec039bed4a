"""scripts/demo on a copy of itself, with stand-ins for the commands that write down how they were called."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ["python", "shardstream-ingest", "shardstream-train", "shardstream-predict"]

STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >>calls
case $(basename "$0") in
  python) mkdir "$3" ;;
  shardstream-ingest) [ ! -e fails ] && mkdir "$3" ;;
  shardstream-train) mkdir "$3" ;;
esac
"""


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path / "my repository"
    (root / "scripts").mkdir(parents=True)
    (root / ".venv/bin").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/demo", root / "scripts/demo")
    (root / "scripts/bootstrap").write_text("#!/bin/sh\necho bootstrap for $BOOTSTRAP_CALLER >>calls\n")
    for command in COMMANDS:
        (root / ".venv/bin" / command).write_text(STAND_IN)
    for program in ("scripts/bootstrap", *(f".venv/bin/{command}" for command in COMMANDS)):
        (root / program).chmod(0o755)
    return root


def demo(root: Path, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [root / "scripts/demo", *map(str, arguments)], cwd=cwd or root, capture_output=True, text=True
    )


def calls(root: Path) -> list[list[str]]:
    return [line.split() for line in (root / "calls").read_text().splitlines()]


def test_goes_from_photos_to_the_report_page(root, tmp_path):
    result = demo(root, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert [call[0] for call in calls(root)] == ["bootstrap", *COMMANDS]
    assert calls(root)[0] == ["bootstrap", "for", "demo"]  # It says not what to do next, as the demo goes on.
    assert result.stdout.splitlines()[-1] == f"open {root}/demo/run/report/index.html"


def test_takes_the_users_photos_from_any_place_and_only_reads_them(root, tmp_path):
    mine = tmp_path / "my photos"
    (mine / "cats").mkdir(parents=True)
    assert demo(root, "my photos", cwd=tmp_path).returncode == 0
    assert f"shardstream-ingest build {mine} demo/data" in (root / "calls").read_text()
    assert "python" not in [call[0] for call in calls(root)]
    assert (mine / "cats").is_dir()


def test_splits_that_are_given_are_kept(root, tmp_path):
    (tmp_path / "mine/train/cats").mkdir(parents=True)
    assert demo(root, tmp_path / "mine").returncode == 0
    assert "--splits-from-folders" not in (root / "calls").read_text()  # "train" alone may be a class.
    (tmp_path / "mine/val/cats").mkdir(parents=True)
    assert demo(root, tmp_path / "mine").returncode == 0
    assert (root / "calls").read_text().count("--splits-from-folders") == 1


def test_a_second_run_replaces_what_the_first_made(root):
    demo(root)
    for made in ("photos", "data", "run"):
        (root / "demo" / made / "old").touch()
    assert demo(root).returncode == 0
    assert list((root / "demo").rglob("old")) == []


def test_what_the_user_put_beside_stays(root):
    demo(root)
    (root / "demo/keep").mkdir()
    demo(root)
    assert (root / "demo/keep").is_dir()


def test_a_folder_of_somebody_else_is_left_alone(root):
    (root / "demo/data").mkdir(parents=True)
    result = demo(root)
    assert result.returncode == 2
    assert result.stderr == (
        f"demo: {root}/demo was not made by this script: move it away, then run this again\n"
    )
    assert (root / "demo/data").is_dir()
    assert not (root / "calls").exists()


@pytest.mark.parametrize("inside", ["demo/data", "demo/run", "demo/run/report"])
def test_photos_where_results_go_are_refused(root, inside):
    demo(root)
    (root / inside).mkdir(exist_ok=True)
    result = demo(root, root / inside)
    assert result.returncode == 2
    assert "the demo would remove it; choose another folder" in result.stderr
    assert (root / inside).is_dir()


def test_the_drawn_photos_can_be_given_as_a_folder(root):
    demo(root)
    (root / "demo/photos/mine").touch()
    assert demo(root, "demo/photos").returncode == 0
    assert (root / "demo/photos/mine").exists()


def test_stops_at_the_first_command_that_fails(root):
    (root / "fails").touch()
    result = demo(root)
    assert result.returncode != 0
    assert [call[0] for call in calls(root)] == ["bootstrap", "python", "shardstream-ingest"]
    assert "open" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "demo: nowhere: no such folder\n"),
        (["a", "b"], "demo: takes one folder or none, found 2 arguments\n"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_set_up(root, arguments, sentence):
    result = demo(root, *arguments)
    assert (result.returncode, result.stderr) == (2, sentence)
    assert not (root / "calls").exists()
