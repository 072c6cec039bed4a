"""Brings TensorFlow up without its chatter."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


def start_tensorflow() -> None:
    """Imports TensorFlow and looks for devices, in silence unless something fails or the user wants to see.

    TF_CPP_MIN_LOG_LEVEL alone does not keep TensorFlow 2.21 from writing a dozen lines about oneDNN and CUDA
    to stderr while it is imported and when it first looks for devices: its logging is not set up yet by then.
    A user who has set the variable gets all that it lets through.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        import tensorflow  # noqa: F401

        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    with _stderr_kept_for_failures():
        import tensorflow as tf

        tf.config.list_physical_devices()


@contextlib.contextmanager
def _stderr_kept_for_failures() -> Iterator[None]:
    """Holds back what is written to the file descriptor of stderr, C++ included, and shows it on an exception."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        original = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
