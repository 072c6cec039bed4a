"""Numbers as people read them."""

import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup


def percent(share: float) -> str:
    """Returns a share as a percentage: "93.8 %"."""
    return f"{share:.1%}".replace("%", "\u00a0%")


def thousands(number: int) -> str:
    """Returns a whole number with its thousands apart: "1,000"."""
    return f"{number:,}"


def as_data(values: Mapping[str, Any]) -> Markup:
    """Returns JSON that no tag can end."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))
