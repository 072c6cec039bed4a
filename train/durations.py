"""Times as people read them."""


def duration(secs: float) -> str:
    """Returns "0.8 s", "42 s", "3 min 20 s" or "2 h 05 min"."""
    if secs < 9.95:
        return f"{secs:.1f} s"
    whole = round(secs)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
