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

    Keras, which TensorFlow imports, loads scikit-learn and Matplotlib where they are installed, for wrappers and
    plots of its own that no command uses: a fifth of the start. For commands only, as those wrappers are broken then.
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
    """Holds back what is written to the file descriptor of stderr, C++ included, and shows it on an exception."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        original = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:  # Not Ctrl-C: the lines have nothing to do with it.
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
