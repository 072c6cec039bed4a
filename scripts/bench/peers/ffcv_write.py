"""FFCV: DatasetWriter with an RGBImageField of JPEGs, quality 95."""

import numpy as np
import pictures
from ffcv.fields import IntField, RGBImageField  # pyright: ignore[reportMissingImports]
from ffcv.writer import DatasetWriter  # pyright: ignore[reportMissingImports]
from PIL import Image
from way import arguments, list_photos, measure, opencv_wheel

Picture = np.ndarray | Image.Image


class SquarePhotos:
    """Photos at 300x300, decoded and resized as in all ways."""

    def __init__(self, photos: list[tuple[str, int]]) -> None:
        self._photos = photos

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, index: int) -> tuple[Picture, int]:
        path, label = self._photos[index]
        return pictures.decode_and_resize(path), label


class WholePhotos(SquarePhotos):
    """Photos from torchvision's ImageFolder, as in FFCV's own ImageNet example; the field resizes them."""

    def __getitem__(self, index: int) -> tuple[Picture, int]:
        path, label = self._photos[index]
        return Image.open(path).convert("RGB"), label


def main() -> None:
    """Runs the program."""
    parser = arguments(str(__doc__))
    parser.add_argument("--example", action="store_true", help="as in FFCV's own ImageNet example")
    options = parser.parse_args()
    # The field resizes the longer side to 300 and keeps the aspect ratio; smaller images are unchanged.
    image = RGBImageField(write_mode="jpg", max_resolution=pictures.SIZE, jpeg_quality=pictures.QUALITY)
    photos = list_photos(options.photos)
    dataset = WholePhotos(photos) if options.example else SquarePhotos(photos)
    options.out.mkdir()
    writer = DatasetWriter(
        str(options.out / "photos.beton"), {"image": image, "label": IntField()}, num_workers=options.workers
    )
    measure(
        lambda: writer.from_indexed_dataset(dataset), "ffcv", "torch", opencv_wheel(), "pillow", "simplejpeg"
    )


if __name__ == "__main__":
    main()
