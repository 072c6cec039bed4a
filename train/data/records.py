"""One record: its picture and its label."""

import numpy as np

from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.records import RecordError
from shardstream.ingest.images.image_errors import ImageError
from shardstream.train.data.decode import PictureDecoder
from shardstream.train.data.example_features import find_features


def decode_record(info: DatasetInfo, decoder: PictureDecoder, payload: memoryview, out: np.ndarray) -> int:
    """Writes the picture of a record to `out`, uint8 [size, size, 3], and returns the label.

    Raises:
        RecordError: It has no picture that can be decoded, or no label that there is.
    """
    image_key, label_key = info.image_key.encode(), info.label_key.encode()
    features = find_features(payload, (image_key, label_key))
    image, label = features.get(image_key), features.get(label_key)
    if not isinstance(image, memoryview):
        raise RecordError(f"has no single picture {info.image_key!r}")
    if not isinstance(label, int) or not 0 <= label < info.num_classes:
        raise RecordError(f"has the label {label}, there are {info.num_classes} classes")
    try:
        decoder.decode(image, out)
    except ImageError as error:
        raise RecordError(f"holds a picture that cannot be decoded ({error})") from None
    return label
