import subprocess
import sys

# In a module of its own: what a running generator refers to is not destroyed when Python exits.
SLOW = """
import time
from pathlib import Path
from shardstream.train.data.dataset import load_dataset
from shardstream.train.data.pipeline import ExamplePlan, finished, make_batches
from shardstream.train.data.sequential import SequentialSampler

def slow_batches(path):
    source = load_dataset(Path(path)).source("train", 16)
    sampler = SequentialSampler.make(source.index, batch_size=8)

    def windows(step):
        for window in sampler.windows(step):
            yield window
            for _ in range(100):
                time.sleep(0.01)

    plan = ExamplePlan(windows=windows, batch_size=8)
    return finished(make_batches(source.index, plan, source.checker))
"""
SCRIPT = """
import sys
from slow import slow_batches

batches = iter(slow_batches(sys.argv[1]))
next(batches)
print("end")
"""


def test_a_script_ends_while_the_next_window_is_made(numbered, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(numbered.info.data_dir)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "end\n"), ended.stderr
