import re

import numpy as np
import pytest

from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.images.settings import ImageSettings
from shardstream.train.data.input_pipeline import StreamedSplit
from shardstream.train.data.plain_stream import PlainSplit


@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
def test_both_ways_give_the_same_batches(make_dataset, encoding):
    image = ImageSettings(size=16, resize="stretch", encoding=encoding, quality=95)
    info = make_dataset(num_train=90, image=image)
    streamed, plain = StreamedSplit(info, "train", image_size=16), PlainSplit(info, "train")
    options = {"seed": 3, "epoch": 1, "batch_size": 8, "start": 16}
    pairs = [
        (streamed.shuffled_batches(**options), plain.shuffled_batches(**options)),
        (streamed.ordered_batches(batch_size=8), plain.ordered_batches(batch_size=8)),
    ]
    for one, other in pairs:
        num_batches = 0
        for a, b in zip(one, other, strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
            num_batches += 1
        assert num_batches in {9, 12}


def test_originals_are_not_for_the_plain_way(make_dataset):
    info = make_dataset(image=ImageSettings(size=None, resize="crop", encoding="jpeg", quality=95))
    with pytest.raises(ConfigError, match=re.escape(f"{info.data_dir}: pictures of differing sizes")):
        PlainSplit(info, "train")
