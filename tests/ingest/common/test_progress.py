import pytest

from shardstream.ingest.common import progress


@pytest.mark.parametrize(
    ("secs_at", "said"),
    [
        ([1, 2, 29], []),  # Short work.
        ([1, 31, 32], ["120 of 180", "180 of 180"]),
        ([31, 62, 93], ["60 of 180", "120 of 180", "180 of 180"]),
    ],
)
def test_lines_come_rarely_and_the_last_has_the_final_count(monkeypatch, capsys, secs_at, said):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.progress("judging", 180, "files") as advance:
        for clock[0] in secs_at:
            advance(60)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" files, ")[0] for line in lines] == [f"judging: {counts}" for counts in said]
