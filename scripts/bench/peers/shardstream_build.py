"""shardstream: the call of `build`, including the start of its workers."""

from way import arguments, measure, opencv_wheel

from shardstream.ingest.commands.build import build_dataset
from shardstream.ingest.commands.config import BuildConfig


def main() -> None:
    """Runs the program."""
    parser = arguments(str(__doc__))
    parser.add_argument("--image-size", required=True, help="original, or pixels")
    parser.add_argument("--check", choices=("full", "header"), default="full")
    options = parser.parse_args()
    size = "original" if options.image_size == "original" else int(options.image_size)
    config = BuildConfig(
        images=options.photos, data=options.out, image_size=size, check=options.check, workers=options.workers
    )
    measure(lambda: build_dataset(config), "shardstream", "simplejpeg", opencv_wheel(), "numpy")


if __name__ == "__main__":
    main()
