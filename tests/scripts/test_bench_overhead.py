import pytest

from scripts.bench import overhead as bench_overhead


def test_epochs_take_turns_and_the_first_two_do_not_count():
    done = []

    def trainer(name):
        def train(end_epoch):
            for _ in range(4):
                done.append(name)
                end_epoch()

        return train

    times = bench_overhead.take_turns({name: trainer(name) for name in "abc"})
    assert "".join(done) == "abc" * 4
    assert {name: len(found) for name, found in times.items()} == {"a": 2, "b": 2, "c": 2}


def test_one_that_fails_keeps_nobody_waiting():
    done = []

    def fails(end_epoch):
        end_epoch()
        raise ValueError("no room")

    def goes_on(end_epoch):
        for epoch in range(3):
            done.append(epoch)
            end_epoch()

    with pytest.raises(ValueError, match="no room"):
        bench_overhead.take_turns({"a": fails, "b": goes_on, "c": goes_on})
    assert done == [0, 0, 1, 1, 2, 2]


def test_the_quicker_fit_is_the_baseline(capsys):
    times = {
        "fit 1": [(2.0, 1.0)] * 2,
        "fit 2": [(1.0, 2.0)] * 2,
        bench_overhead.OURS: [(1.0, 1.0), (1.2, 1.0)],
    }
    bench_overhead.report(times)
    printed = capsys.readouterr().out.splitlines()
    assert "Ours takes +10.0% on the clock, against fit 2." in printed
    assert "Ours takes +0.0% of core time, against fit 1." in printed
