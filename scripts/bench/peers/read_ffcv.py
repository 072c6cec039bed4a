"""FFCV: its Loader in random order, from JPEGs of the same quality or from raw images in the page cache."""

import simplejpeg
from epochs import BATCH, SIZE, arguments, list_files, measure_epochs
from ffcv.fields import IntField, RGBImageField  # pyright: ignore[reportMissingImports]
from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder  # pyright: ignore[reportMissingImports]
from ffcv.loader import Loader, OrderOption  # pyright: ignore[reportMissingImports]
from ffcv.transforms import ToTensor  # pyright: ignore[reportMissingImports]
from ffcv.writer import DatasetWriter  # pyright: ignore[reportMissingImports]


class Photos:
    """Decoded photos and labels, for the writer."""

    def __init__(self, files: list) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple:
        path, label = self._files[index]
        return simplejpeg.decode_jpeg(path.read_bytes(), "RGB"), label


def main() -> None:
    """Runs the program."""
    parser = arguments(str(__doc__))
    parser.add_argument("--write-mode", choices=("jpg", "raw"), required=True)
    options = parser.parse_args()
    path = options.own.with_suffix(".beton")
    if not path.exists():
        image = RGBImageField(write_mode=options.write_mode, max_resolution=SIZE, jpeg_quality=95)
        writer = DatasetWriter(str(path), {"image": image, "label": IntField()}, num_workers=options.workers)
        writer.from_indexed_dataset(Photos(list_files(options.inputs / "files")))
    loader = Loader(
        str(path),
        batch_size=BATCH,
        num_workers=options.workers,
        order=OrderOption.RANDOM,
        os_cache=True,
        pipelines={
            "image": [SimpleRGBImageDecoder(), ToTensor()],
            "label": [IntDecoder(), ToTensor()],
        },
    )
    measure_epochs(lambda _: loader, options.epochs, "ffcv", "torch")


if __name__ == "__main__":
    main()
