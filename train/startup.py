"""Starts TensorFlow without its startup messages."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


def start_tensorflow() -> None:
    """Imports TensorFlow and initializes devices, silently unless something fails or the user wants the messages.

    TF_CPP_MIN_LOG_LEVEL alone does not keep TensorFlow 2.21 from writing a dozen lines about oneDNN and CUDA to stderr
    during import and device initialization: its logging is not set up yet at that point. If the user has set the
    variable, everything it lets through is shown.

    Keras, imported by TensorFlow, loads scikit-learn and Matplotlib if installed, for wrappers and plots that no
    command uses: a fifth of the startup time. Only for commands, as those wrappers do not work afterwards.
    """
    with _hidden("sklearn", "matplotlib"):
        if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
            import tensorflow as tf

            return
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
        with _stderr_kept_for_failures():
            import tensorflow as tf

            tf.config.list_physical_devices()


@contextlib.contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Makes packages that are not imported yet look as if they were not installed."""
    names = tuple(name for name in names if name not in sys.modules)
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type] - None there is an ImportError.
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


@contextlib.contextmanager
def _stderr_kept_for_failures() -> Iterator[None]:
    """Buffers the output to the file descriptor of stderr, including that of C++, and shows it on an exception."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        original = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:  # Not Ctrl-C: the lines are unrelated to it.
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
