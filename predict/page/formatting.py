"""Numbers as people read them."""


def percent(share: float) -> str:
    """Returns a share as a percentage: "93.8 %"."""
    return f"{share:.1%}".replace("%", "\u00a0%")


def thousands(number: int) -> str:
    """Returns a whole number with its thousands apart: "1,000"."""
    return f"{number:,}"
