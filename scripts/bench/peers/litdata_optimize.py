"""litdata: `optimize`, with forked workers, so that they need no imports of their own."""

import os
from pathlib import Path

import pictures
from litdata import optimize  # pyright: ignore[reportMissingImports]
from way import arguments, list_photos, measure, opencv_wheel


def original(photo: tuple[str, int]) -> dict[str, object]:
    """Returns the bytes of the photo unchanged."""
    path, label = photo
    return {"image": Path(path).read_bytes(), "label": label}


def small(photo: tuple[str, int]) -> dict[str, object]:
    """Returns the photo at 300x300."""
    path, label = photo
    return {"image": pictures.decode_resize_encode(path), "label": label}


def main() -> None:
    """Runs the program."""
    parser = arguments(str(__doc__))
    parser.add_argument("--image-size", choices=("original", str(pictures.SIZE)), required=True)
    options = parser.parse_args()
    # Otherwise its temporary files would be in the system's temporary folder, perhaps on another disk.
    for name in ("DATA_OPTIMIZER_CACHE_FOLDER", "DATA_OPTIMIZER_DATA_CACHE_FOLDER"):
        os.environ[name] = str(options.out.with_name(name.lower()))
    measure(
        lambda: optimize(
            fn=original if options.image_size == "original" else small,
            inputs=list_photos(options.photos),
            output_dir=str(options.out),
            chunk_bytes="64MB",
            num_workers=options.workers,
            start_method="fork",
            verbose=False,
        ),
        "litdata",
        "torch",
        opencv_wheel(),
        "simplejpeg",
    )


if __name__ == "__main__":
    main()
