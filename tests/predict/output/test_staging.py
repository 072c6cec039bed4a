"""The folder of a report: whole or not at all, whoever else writes into it."""

import errno
import threading
from pathlib import Path

import pytest

from shardstream.predict.output.staging import KNOWN_FILES, publish, staging_in


def write_report(out, content):
    with staging_in(out) as staging:
        for name in KNOWN_FILES:
            (staging / name).write_text(content)
        publish(staging, out, KNOWN_FILES)


def test_two_reports_that_end_at_once_leave_one_of_them_whole(tmp_path, monkeypatch):
    replace, others = Path.replace, []

    def replace_while_another_report_ends(self, target):
        if not others and Path(target).name == KNOWN_FILES[3]:  # In the midst of the first.
            others.append(threading.Thread(target=write_report, args=(tmp_path, "other")))
            others[0].start()
            others[0].join(0.5)  # Ends here, unless it waits.
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replace_while_another_report_ends)
    write_report(tmp_path, '{"command": "", "versions": {}}')
    others[0].join()
    assert {(tmp_path / name).read_text() for name in KNOWN_FILES} == {"other"}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(KNOWN_FILES)


@pytest.mark.parametrize("left_by_the_user", [None, "empty", "a file"])
def test_a_report_that_was_stopped_leaves_the_folder_as_it_was(tmp_path, left_by_the_user):
    out = tmp_path / "report"
    if left_by_the_user:
        out.mkdir()
    if left_by_the_user == "a file":
        (out / "notes.txt").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt), staging_in(out) as staging:
        (staging / KNOWN_FILES[0]).touch()
        raise KeyboardInterrupt
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("named", "where"), [(None, "report"), ("elsewhere", "elsewhere")])
def test_an_error_of_the_system_says_where(tmp_path, named, where):
    with pytest.raises(OSError, match=f"No space left on device.*{where}'"), staging_in(tmp_path / "report"):
        raise OSError(errno.ENOSPC, "No space left on device", named)


def test_a_staging_folder_that_goes_while_it_is_looked_at_ends_no_report(tmp_path):
    # A link to nothing is listed, and cannot be looked at, as a folder that another process removes in between.
    (tmp_path / ".incomplete-other").symlink_to(tmp_path / "gone")
    with staging_in(tmp_path) as staging:
        assert staging.is_dir()
