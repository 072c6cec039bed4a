"""Why a file holds no image that can be used, and the limits that are known before memory is spent."""

# What a worker keeps to whatever it is given, and what Python, the libraries and the stored image take of it.
_WORKER_BYTES = 1_000_000_000
_OWN_BYTES = 120_000_000


class ImageError(Exception):
    """The file holds no image that can be used. Says why."""


def check_pixels(height: int, width: int, max_pixels: int) -> None:
    """Raises ImageError where an image has more than `max_pixels`."""
    if height * width > max_pixels:
        raise ImageError(too_many_pixels(max_pixels))


def too_many_pixels(max_pixels: int) -> str:
    """Returns why an image with more than `max_pixels` is rejected."""
    return f"too large: more than {max_pixels:,} pixels (--max-pixels)"


def check_memory(num_bytes: int) -> None:
    """Raises ImageError where a file and what it takes to decode it would take a worker beyond 1 GB."""
    needed = num_bytes + _OWN_BYTES
    if needed > _WORKER_BYTES:
        raise ImageError(
            f"too large: {needed / 1e9:.2f} GB to decode it, a worker keeps to 1; make it smaller"
        )
