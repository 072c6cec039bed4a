import itertools
import threading

import pytest

from scripts.bench import noisy_neighbor, scaling


@pytest.mark.parametrize(
    ("most", "cores"), [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (16, (1, 2, 4, 8, 16))]
)
def test_cores_double_up_to_all(most, cores):
    assert scaling.powers_of_two(most) == cores


def test_more_cores_than_there_are_is_told(tmp_path):
    with pytest.raises(SystemExit, match=r"--cores 5000: this process may use 1 to "):
        scaling.main(scaling.BenchConfig(data_dir=tmp_path, cores=(5000,)))


def test_medians_are_beside_those_of_the_fewest_cores(capsys):
    scaling.report(
        {"none": {1: [(100.0, 1.0), (300.0, 3.0), (200.0, 2.0)], 2: [(350.0, 2.5)], 4: [(600.0, 2.0)]}}
    )
    rows = capsys.readouterr().out.splitlines()[2:5]
    assert rows == [
        "| none | 1 | 200 | 1.00 | 2.000 |",
        "| none | 2 | 350 | 1.75 | 2.500 |",
        "| none | 4 | 600 | 3.00 | 2.000 |",
    ]


def test_a_spinning_thread_ends_with_its_measurement():
    before = threading.active_count()
    with noisy_neighbor.beside("thread"):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_the_generators_of_the_pipeline_are_timed_and_counted():
    meter = noisy_neighbor.PythonMeter()

    def from_generator(generator, **options):
        assert options == {"output_signature": None}
        return list(itertools.islice(generator(), 3))

    dataset = meter.wrap(from_generator)(lambda: iter(range(5)), output_signature=None)
    assert (dataset, meter.calls) == ([0, 1, 2], 3)
