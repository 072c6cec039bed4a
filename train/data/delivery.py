"""The last steps of every dataset: weights, padding, prefetching."""

from collections.abc import Callable

import tensorflow as tf

from shardstream.train.data.pipeline import finished, without_autograph

_DEVICE_BATCHES = 2


def delivered(batches: tf.data.Dataset, device: str | None) -> tf.data.Dataset:
    """Returns `batches` prefetched on the host, and copied in advance to `device` if one is given."""
    batches = finished(batches)
    if device is None:
        return batches
    return batches.apply(tf.data.experimental.prefetch_to_device(device, buffer_size=_DEVICE_BATCHES))


@without_autograph
def add_weights(images: tf.Tensor, labels: tf.Tensor, *keys: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Returns images, labels, sample weights of 1, and any further elements."""
    return images, labels, tf.ones_like(labels, tf.float32), *keys


def pad_batches(batch_size: int) -> Callable[..., tuple[tf.Tensor, ...]]:
    """Returns the function that adds weights and pads a batch to `batch_size` examples."""

    def pad(tensor: tf.Tensor) -> tf.Tensor:
        missing = batch_size - tf.shape(tensor)[0]
        filler = tf.zeros([missing, *tensor.shape[1:]], tensor.dtype)
        padded = tf.cond(missing > 0, lambda: tf.concat([tensor, filler], 0), lambda: tensor)
        return tf.ensure_shape(padded, [batch_size, *tensor.shape[1:]])

    @without_autograph
    def weigh(images: tf.Tensor, labels: tf.Tensor, *keys: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return tuple(map(pad, add_weights(images, labels, *keys)))

    return weigh
