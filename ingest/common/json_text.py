"""Human-readable JSON for files: non-ASCII letters are not escaped."""

import json
import re
from collections.abc import Mapping
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")


def json_text(content: Mapping[str, Any]) -> str:
    """Returns `content` as JSON that can be written as UTF-8.

    Bytes of a path that are not UTF-8 are surrogates in Python: they become escapes, which a reader decodes again.

    Raises:
        ValueError: A number is not finite, which JSON does not support.
    """
    text = json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
