"""Why a file holds no picture that can be used, and the limits that are known before memory is spent."""

# A worker keeps to 1 GB whatever it is given; Python and the libraries take 0.07, what is stored the rest.
_MAX_BYTES = 880_000_000


class RejectedError(Exception):
    """The file holds no picture that can be used. Says why."""


def check_pixels(height: int, width: int, max_pixels: int) -> None:
    """Raises RejectedError where a picture has more than `max_pixels`."""
    if height * width > max_pixels:
        raise RejectedError(too_many_pixels(max_pixels))


def too_many_pixels(max_pixels: int) -> str:
    """Returns why a picture with more than `max_pixels` is rejected."""
    return f"too large: more than {max_pixels:,} pixels (--max-pixels)"


def check_memory(num_bytes: int) -> None:
    """Raises RejectedError where a file and what it takes to decode it would take a worker beyond 1 GB."""
    if num_bytes > _MAX_BYTES:
        needed = f"{num_bytes / 1e9:.1f} GB"
        raise RejectedError(
            f"too large: {needed} of memory to decode it, a worker keeps to 1; make it smaller"
        )
