"""Reads the tensors of a PyTorch file in the legacy layout, without PyTorch.

The layout is that of `torch.save` before PyTorch 1.6 (torch/serialization.py, `_legacy_save`): five pickles, which are
a magic number, the protocol version, a description of the machine, the tensors by name and the keys of their storages;
then for each key the number of elements as int64 and the elements, little-endian.

For files whose SHA-256 is known, see `pretrained`. Others could declare any size, though they could run nothing.
"""

import io
import pickle
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

_NUM_PICKLES = 5
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
_LENGTH = np.dtype("<i8")


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype


class _Tensor(NamedTuple):
    """A tensor as part of a storage; start and strides are in elements."""

    storage: _Storage
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def parse_torch_weights(content: bytes) -> dict[str, np.ndarray]:
    """Returns the tensors in the bytes of a file by name, float32 or int64, as read-only views.

    Raises:
        pickle.UnpicklingError: It holds anything but tensors of these types.
    """
    file = io.BytesIO(content)
    *_, tensors, keys = [_Unpickler(file).load() for _ in range(_NUM_PICKLES)]
    dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in tensors.values()}
    storages, position = {}, file.tell()
    for key in keys:
        (length,) = np.frombuffer(content, _LENGTH, count=1, offset=position)
        position += _LENGTH.itemsize
        storages[key] = np.frombuffer(content, dtypes[key], count=int(length), offset=position)
        position += storages[key].nbytes
    return {name: _view(tensor, storages[tensor.storage.key]) for name, tensor in tensors.items()}


class _Unpickler(pickle.Unpickler):
    """Creates plain containers and descriptions of tensors, and nothing else."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module_name, global_name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._rebuild_tensor
        if module_name == "torch" and global_name in _DTYPES:
            return global_name
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is not allowed")

    def persistent_load(self, pid: Any, /) -> _Storage:
        _, storage_type, key, *_ = pid
        return _Storage(key, _DTYPES[storage_type])

    def _rebuild_tensor(self, storage: Any, start: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
        return _Tensor(storage, start, tuple(shape), tuple(strides))


def _view(tensor: _Tensor, elements: np.ndarray) -> np.ndarray:
    strides = [elements.itemsize * stride for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(elements[tensor.start :], tensor.shape, strides, writeable=False)
