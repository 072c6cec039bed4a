"""The error for unusable images, and limits that are checked before memory is allocated."""

# The memory limit of a worker, and the part of it for Python, the libraries and the stored image.
_WORKER_BYTES = 1_000_000_000
_OWN_BYTES = 120_000_000


class ImageError(Exception):
    """The file has no usable image. The message says why."""


def check_pixels(height: int, width: int, max_pixels: int) -> None:
    """Raises ImageError if an image has more than `max_pixels`."""
    if height * width > max_pixels:
        raise ImageError(too_many_pixels(max_pixels))


def too_many_pixels(max_pixels: int) -> str:
    """Returns why an image with more than `max_pixels` is rejected."""
    return f"too large: more than {max_pixels:,} pixels (--max-pixels)"


def check_memory(num_bytes: int) -> None:
    """Raises ImageError if a file and its decoding would exceed the worker's limit of 1 GB."""
    needed = num_bytes + _OWN_BYTES
    if needed > _WORKER_BYTES:
        raise ImageError(
            f"too large: {needed / 1e9:.2f} GB to decode it, a worker keeps to 1; make it smaller"
        )
