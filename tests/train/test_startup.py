import os
import subprocess
import sys

PROGRAM = """
import os, sys
from shardstream.train.startup import start_tensorflow
start_tensorflow()
import tensorflow as tf
tf.add(1, 1)
print("loaded", *sorted({"keras", "sklearn", "matplotlib"} & set(sys.modules)))
import matplotlib, sklearn
print("after", file=sys.stderr)
"""


def test_tensorflow_comes_up_in_silence_and_without_what_no_command_uses():
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment
    )
    assert (done.stdout, done.stderr) == ("loaded keras\n", "after\n")


def test_what_was_held_back_is_shown_on_a_failure(capfd):
    import pytest

    from shardstream.train.startup import _stderr_kept_for_failures

    with pytest.raises(ImportError), _stderr_kept_for_failures():
        os.write(2, b"the reason\n")
        raise ImportError
    assert capfd.readouterr().err == "the reason\n"
    with pytest.raises(KeyboardInterrupt), _stderr_kept_for_failures():
        os.write(2, b"chatter\n")
        raise KeyboardInterrupt
    with _stderr_kept_for_failures():
        os.write(2, b"chatter\n")
    assert capfd.readouterr().err == ""
