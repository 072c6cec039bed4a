"""Number formats for people."""

import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup


def percent(share: float) -> str:
    """Returns a fraction as a percentage: "93.8 %"."""
    return f"{share:.1%}".replace("%", "\u00a0%")


def thousands(number: int) -> str:
    """Returns an integer with thousands separators: "1,000"."""
    return f"{number:,}"


def as_data(values: Mapping[str, Any]) -> Markup:
    """Returns JSON that is safe inside a script element."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))
