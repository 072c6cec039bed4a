"""Groups of examples that the split rule of the dataset keeps together, by their file names."""

import json
import subprocess
import sys
from collections.abc import Sequence

import numpy as np

from shardstream.ingest.common.errors import DatasetError

# Rules of ingest that are not regular expressions.
_WORDS = ("duplicates", "near-duplicates")
_TIMEOUT_SECS = 60
_PROGRAM = """
import json, re, sys
pattern, names = json.load(sys.stdin)
find = re.compile(pattern).search
json.dump([match[1] if (match := find(name)) else None for name in names], sys.stdout)
"""


def find_groups(names: Sequence[str], keep_together: str) -> np.ndarray | None:
    """Returns the group number of each example, int64 [num_examples]; None if each is its own group.

    Args:
        names: The file names in the order of the examples.
        keep_together: Rule of the dataset: a word, or a regular expression whose first group names the group.

    Raises:
        DatasetError: The expression is invalid, or takes too long: it may come from an untrusted source.
    """
    if keep_together in _WORDS or not names:
        return None
    # A separate process: Python cannot interrupt a regular expression.
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
    # Names without a match are groups of their own.
    keys = [f"group/{group}" if group is not None else f"example/{i}" for i, group in enumerate(found)]
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)
