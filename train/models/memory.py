"""How much memory a model needs while it is trained."""

import keras
import numpy as np

# A weight, its gradient and Adam's two averages, float32 always.
_BYTES_OF_A_WEIGHT = 16


def training_bytes(model: keras.Model, batch_size: int) -> int:
    """Returns about what training takes on a device that gets `batch_size` pictures of each batch.

    Every layer's output is kept for the way back. Not every one is needed there, which leaves room for gradients and
    for what single operations take in passing: `small` with 64 pictures of 160x160 took 0.30 GB on a CPU, where this
    says 0.40.
    """
    weights = sum(int(np.prod(weight.shape)) for weight in model.weights)
    return weights * _BYTES_OF_A_WEIGHT + batch_size * _output_bytes(model)


def _output_bytes(model: keras.Model) -> int:
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += _output_bytes(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            outputs = keras.tree.flatten(layer.output)
            itemsize = np.dtype("float16" if "16" in layer.compute_dtype else "float32").itemsize
            total += itemsize * sum(int(np.prod(output.shape[1:])) for output in outputs)
    return total
