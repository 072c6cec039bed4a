import io
import json
import subprocess
import sys

import pytest
from PIL import Image

from scripts.faults import images as fault_images
from scripts.faults.images import Child, Reply, decode_for_ever, judge_for_ever
from scripts.faults.mutations import MUTATIONS, draw_sources, load_sources, mutate


def run_script(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", fault_images.__name__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


@pytest.mark.slow
def test_a_small_campaign_finds_nothing_wrong(tmp_path):
    result = run_script("--count", 300, "--seed", 5, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    *table, figures = result.stdout.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert [kind for kind, *_ in rows] == list(MUTATIONS)
    assert sum(int(count) for _, *counts in rows for count in counts) == 300
    found = json.loads(figures)
    assert found["faults"] == []
    assert found["decoded_by_tensorflow"] > 100
    assert 10**7 < found["most_bytes"] < fault_images.MAX_BYTES
    assert not (tmp_path / "out").exists()


def test_the_same_seed_breaks_the_same_images_in_every_way(tmp_path):
    sources = draw_sources()
    (tmp_path / "a.jpg").write_bytes(sources[0].data)
    assert load_sources(tmp_path) == [(sources[0].data, ".jpg")]
    broken = [mutate(sources, 7, number) for number in range(400)]
    assert broken == [mutate(sources, 7, number) for number in range(400)]
    assert broken[0] != mutate(sources, 8, 0)
    assert {image.kind for image in broken} == set(MUTATIONS)
    whole = {source.data for source in sources}
    assert sum(image.data in whole for image in broken) < 80


@pytest.fixture
def child(request):
    child = Child(request.param)
    yield child
    child.close()


@pytest.mark.parametrize("child", [judge_for_ever], indirect=True)
def test_a_worker_that_dies_is_known(child):
    reply = child.ask((draw_sources()[0].data, ".jpg", None), 60)
    assert isinstance(reply, Reply)
    assert (reply.verdict, reply.size) == ("ok", (110, 150))
    assert child.ask("not a question", 60) == "died with exit code 1"


@pytest.mark.parametrize("child", [judge_for_ever], indirect=True)
def test_a_worker_that_hangs_is_known_and_ended(child):
    out = io.BytesIO()
    Image.effect_noise((4000, 4000), 50).save(out, "PNG", compress_level=1)
    assert child.ask((out.getvalue(), ".png", 128), 0.01) == "took more than 0.01 s"
    assert child.ask((out.getvalue(), ".png", 128), 60) == "died with exit code -9"


@pytest.mark.parametrize("child", [decode_for_ever], indirect=True)
def test_what_tensorflow_does_not_decode_or_finds_of_another_size_is_known(child):
    out = io.BytesIO()
    Image.new("RGB", (5, 4)).save(out, "PNG")
    assert child.ask((out.getvalue(), (4, 5)), 60) == ""
    assert child.ask((out.getvalue(), (5, 4)), 60) == "(4, 5, 3), expected (5, 4, 3)"
    assert "PNG" in str(child.ask((out.getvalue()[:50], (4, 5)), 60))
