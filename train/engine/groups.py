"""Which examples of a split belong together, by their file names and the rule that the dataset was split by."""

import json
import subprocess
import sys
from collections.abc import Sequence

import numpy as np

from shardstream.ingest.common.errors import DatasetError

# Rules of ingest that are no regular expression.
_WORDS = ("duplicates", "near-duplicates")
_TIMEOUT_SECS = 60
_PROGRAM = """
import json, re, sys
pattern, names = json.load(sys.stdin)
find = re.compile(pattern).search
json.dump([match[1] if (match := find(name)) else None for name in names], sys.stdout)
"""


def find_groups(names: Sequence[str], keep_together: str) -> np.ndarray | None:
    """Returns the number of the group of each example, int64 [num_examples]; None where each is its own.

    Args:
        names: The file names in the order of the examples.
        keep_together: Of the dataset: a word, or a regular expression whose first group names what belongs together.

    Raises:
        DatasetError: The expression is invalid, or takes too long: it may have been written by a stranger.
    """
    if keep_together in _WORDS or not names:
        return None
    # A process of its own: Python cannot interrupt a regular expression.
    command = [sys.executable, "-I", "-c", _PROGRAM]
    text = json.dumps([keep_together, list(names)])
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=_TIMEOUT_SECS, check=True
        )
    except subprocess.SubprocessError as error:
        reason = "takes too long" if isinstance(error, subprocess.TimeoutExpired) else "is invalid"
        raise DatasetError(
            f"the expression {keep_together!r} that the dataset was split by {reason}; build the dataset again"
        ) from None
    found = json.loads(done.stdout)
    # Names that match nothing are groups of their own.
    keys = [f"group/{group}" if group is not None else f"example/{i}" for i, group in enumerate(found)]
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)
