"""JSON for files: letters as they are, so that a person can read it."""

import json
import re
from collections.abc import Mapping
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")


def json_text(content: Mapping[str, Any]) -> str:
    """Returns `content` as JSON that can be written as UTF-8.

    Bytes of a path that are not UTF-8 are surrogates in Python: they become escapes, which a reader turns back.

    Raises:
        ValueError: A number is not finite: JSON has no such number.
    """
    text = json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
