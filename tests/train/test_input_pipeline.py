import numpy as np
import pytest
import tensorflow as tf

from ingest.metadata import ImageSettings
from train.cache import CachedSplit
from train.damage import naming_damage
from train.input_pipeline import (
    StreamedSplit,
    decode_image,
    make_eval_dataset,
    make_train_dataset,
    parse_example,
    read_records,
)

SIZE = 16
NUM_TRAIN = 517  # 33 blocks in 3 shards, and 5 pictures beyond the last batch of 8.


@pytest.fixture(scope="module")
def info(make_dataset):
    return make_dataset(num_train=NUM_TRAIN, num_validation=21)


@pytest.fixture(scope="module", params=["stream", "memory"])
def source(request, info):
    # A window of 4 blocks, so that an epoch has several.
    stream = StreamedSplit(info, "train", image_size=SIZE, window_bytes=info.split("train").num_bytes // 8)
    return stream if request.param == "stream" else CachedSplit(stream)


def numbers(images: np.ndarray) -> list[int]:
    return (images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 0, 1]).tolist()


def order(dataset: tf.data.Dataset) -> list[int]:
    return [number for batch in dataset for number in numbers(batch[0].numpy())]


def train_order(source, *, batch_size=8, seed=3, epoch=0, **options) -> list[int]:
    return order(make_train_dataset(source, seed=seed, epoch=epoch, batch_size=batch_size, **options))


def test_an_epoch_is_a_permutation_without_the_last_part_of_a_batch(source):
    seen = train_order(source)
    assert len(seen) == len(set(seen)) == NUM_TRAIN // 8 * 8
    assert set(seen) <= set(range(NUM_TRAIN))


def test_every_picture_gets_its_turn(source):
    epochs = [set(train_order(source, epoch=epoch)) for epoch in range(4)]
    assert set.union(*epochs) == set(range(NUM_TRAIN))


def test_order_is_a_pure_function_of_seed_and_epoch(source):
    first = train_order(source)
    assert train_order(source) == first
    assert train_order(source, epoch=1) != first
    assert train_order(source, seed=4) != first


@pytest.mark.parametrize("start_step", [1, 9, 33, 63])
def test_an_epoch_can_be_started_at_any_step(source, start_step):
    assert train_order(source, start_step=start_step) == train_order(source)[8 * start_step :]


@pytest.mark.parametrize(("seed", "epoch"), [(3, 0), (3, 1), (8, 0)])
def test_the_order_of_the_stream_is_known_beforehand(info, seed, epoch):
    stream = StreamedSplit(info, "train", image_size=SIZE, window_bytes=info.split("train").num_bytes // 8)
    expected = stream.order(seed=seed, epoch=epoch)
    assert sorted(expected) == list(range(NUM_TRAIN))
    assert train_order(stream, seed=seed, epoch=epoch) == expected[: NUM_TRAIN // 8 * 8].tolist()


def test_replicas_share_the_batches_of_one_device(source):
    assert train_order(source, num_replicas=2) == train_order(source)
    dataset = make_train_dataset(source, seed=3, epoch=0, batch_size=8, num_replicas=2, start_step=60)
    assert dataset.cardinality() == 8
    assert dataset.element_spec[0].shape == (4, SIZE, SIZE, 3)


def test_shuffling_mixes_the_shards(source):
    """Neighbours in the files are no neighbours in training, and a batch comes from everywhere."""
    seen = np.array(train_order(source))
    assert np.mean(np.abs(np.diff(seen)) < 16) < 0.4  # A block is a quarter of a window here.
    assert abs(np.corrcoef(seen[:-1], seen[1:])[0, 1]) < 0.35
    shards = seen * 3 // NUM_TRAIN
    assert np.mean([len(set(batch)) > 1 for batch in shards.reshape(-1, 8)]) > 0.9


def test_records_of_a_block_come_in_no_order(source):
    seen = np.array(train_order(source))
    neighbours = [seen[seen // 16 == block] for block in range(10)]
    ascending = np.mean([np.mean(np.diff(numbers) > 0) for numbers in neighbours])
    assert 0.3 < ascending < 0.7


def test_batches_are_uint8_of_static_shape(source):
    images, labels = make_train_dataset(source, seed=1, epoch=0, batch_size=8).element_spec
    assert (images.shape, images.dtype) == ((8, SIZE, SIZE, 3), tf.uint8)
    assert (labels.shape, labels.dtype) == ((8,), tf.int32)


def test_labels_belong_to_their_pictures(source):
    for images, labels in make_train_dataset(source, seed=1, epoch=0, batch_size=8).take(5):
        assert images.numpy()[:, 0, 0, 2].tolist() == labels.numpy().tolist()


@pytest.mark.parametrize("num_replicas", [1, 2, 4])
def test_evaluation_gives_each_picture_once_and_pads(source, num_replicas):
    batches = list(make_eval_dataset(source, batch_size=8, num_replicas=num_replicas))
    assert len(batches) == 65 * num_replicas
    images, labels, weights = (np.concatenate([batch[i].numpy() for batch in batches]) for i in range(3))
    assert weights.tolist() == [1.0] * NUM_TRAIN + [0.0] * 3
    assert numbers(images[:NUM_TRAIN]) == list(range(NUM_TRAIN))
    assert labels[:NUM_TRAIN].tolist() == [n % 3 for n in range(NUM_TRAIN)]
    assert not images[NUM_TRAIN:].any()


def test_evaluation_of_whole_batches_gets_none_of_black_pictures(make_dataset):
    source = StreamedSplit(make_dataset(num_validation=16), "validation", image_size=SIZE)
    assert [batch[2].numpy().sum() for batch in make_eval_dataset(source, batch_size=8)] == [8, 8]


def test_records_come_in_file_order_with_all_their_keys(info):
    records = read_records(info, "validation")
    assert records.cardinality() == 21
    examples = [parse_example(record) for record in naming_damage(records, info, "validation")]
    assert [example["filename"].numpy() for example in examples] == [b"a/%d.jpg" % n for n in range(21)]
    assert sorted(examples[0]) == ["filename", "image", "label", "sha256", "source_height", "source_width"]
    assert [int(examples[4][key]) for key in ("label", "source_height", "source_width")] == [1, 5, 5]
    assert examples[4]["sha256"].numpy() == b"%064d" % 4


@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
def test_decoding(encoding, encode):
    pixels = np.full((SIZE, SIZE, 3), (250, 120, 10), np.uint8)
    settings = ImageSettings(size=SIZE, resize="stretch", encoding=encoding, quality=95)
    decoded = decode_image(encode(pixels, encoding), image=settings, image_size=SIZE, resize="stretch")
    assert decoded.dtype == tf.uint8
    assert np.abs(decoded.numpy().astype(int) - pixels).max() <= (3 if encoding == "jpeg" else 0)


def test_png_among_jpegs_is_decoded(encode):
    # A PNG of the right size keeps its bytes whatever the encoding of the rest is.
    settings = ImageSettings(size=SIZE, resize="stretch", encoding="jpeg", quality=95)
    pixels = np.arange(SIZE * SIZE * 3, dtype=np.uint8).reshape(SIZE, SIZE, 3)
    decoded = decode_image(encode(pixels, "png"), image=settings, image_size=SIZE, resize="stretch")
    assert (decoded.numpy() == pixels).all()


LEFT_RIGHT = np.repeat(
    np.array([[[255, 0, 0]] * 8 + [[0, 0, 255]] * 8 + [[0, 255, 0]] * 8], np.uint8), 8, axis=0
)


@pytest.mark.parametrize(
    ("resize", "left", "top"),
    [
        ("stretch", (255, 0, 0), (0, 0, 255)),  # All of it, squeezed.
        ("crop", (0, 0, 255), (0, 0, 255)),  # The square in the middle.
        ("pad", (255, 0, 0), (0, 0, 0)),  # All of it, black above and below.
    ],
)
def test_originals_become_square_as_the_rule_says(resize, left, top, encode):
    settings = ImageSettings(size=None, resize=resize, encoding="png", quality=95)
    decoded = decode_image(encode(LEFT_RIGHT, "png"), image=settings, image_size=24, resize=resize).numpy()
    assert decoded.shape == (24, 24, 3)
    assert tuple(decoded[12, 1]) == left
    assert tuple(decoded[1, 12]) == top


def test_stored_pictures_are_made_smaller_without_overshooting(info):
    source = StreamedSplit(info, "validation", image_size=8)
    images = next(iter(make_eval_dataset(source, batch_size=21)))[0].numpy()
    assert images.shape == (21, 8, 8, 3)
    # The lower right is flat, 10 times the label.
    assert images[:, -1, -1, 0].tolist() == [10 * (n % 3) for n in range(21)]
