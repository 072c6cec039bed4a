"""Reads the tensors of a PyTorch file in the legacy layout, without PyTorch and without executing anything in it.

The layout is that of `torch.save` before PyTorch 1.6 (torch/serialization.py, `_legacy_save`): a magic number, the
protocol version, a description of the machine, the object and the keys of its storages, each a separate pickle; then
for each key the number of elements as int64 and the elements.
"""

import io
import math
import pickle
import pickletools
import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shardstream.ingest.common.errors import DatasetError

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
_LENGTH = np.dtype("<i8")
# A network with a thousand layers has a pickle of 0.2 MB.
_MAX_PICKLE_BYTES = 16 << 20
_MAX_DIMENSIONS = 8

# Opcodes that a pickle of protocol 2 needs for a dictionary of tensors. BUILD sets attributes of that dictionary.
_OPCODES = (
    *("PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "BINPERSID", "NONE", "NEWTRUE", "NEWFALSE"),
    *(
        "BINPUT",
        "LONG_BINPUT",
        "BINGET",
        "LONG_BINGET",
        "LONG1",
        "BININT",
        "BININT1",
        "BININT2",
        "BINUNICODE",
    ),
    *("EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
)


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    num_elements: int


class _Tensor(NamedTuple):
    """A tensor as part of a storage; start and strides are in elements."""

    storage: _Storage
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def load_torch_weights(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a state dictionary by name, float32 or int64, as read-only views of the file's bytes.

    Raises:
        DatasetError: It is truncated, has another layout, or contains anything but tensors of these types.
        OSError: It cannot be read.
    """
    return parse_torch_weights(path.read_bytes(), str(path))


def parse_torch_weights(content: bytes, name: str) -> dict[str, np.ndarray]:
    """Does the same as `load_torch_weights`, from the bytes of a file; `name` is for the error.

    Raises:
        DatasetError: As in `load_torch_weights`.
    """
    try:
        return _parse(content)
    # Foreign pickles make the unpickler raise any exception, OverflowError and TypeError among them.
    except Exception as error:
        reason = str(error).strip().split("\n", 1)[0][:200]
        raise DatasetError(f"{name}: not a PyTorch file in the legacy layout, or corrupt: {reason}") from None


def _parse(content: bytes) -> dict[str, np.ndarray]:
    file = io.BytesIO(content)
    if _load(file) != _MAGIC_NUMBER:
        raise ValueError("another magic number")
    if (version := _load(file)) != _PROTOCOL_VERSION:
        raise ValueError(f"protocol version {version}, expected {_PROTOCOL_VERSION}")
    if not (machine := _load(file)) or machine.get("little_endian") is not True:
        raise ValueError("not written on a little-endian machine")
    tensors, keys = _load(file), _load(file)
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, _Tensor) for name, tensor in tensors.items()
    ):
        raise ValueError("not a dictionary of tensors")
    storages = _read_storages(content, file.tell(), tensors, keys)
    return {name: _view(tensor, storages) for name, tensor in tensors.items()}


def _load(file: io.BytesIO) -> Any:
    """Returns the unpickled object at the current position of `file`."""
    _check_opcodes(file)
    return _Unpickler(file).load()


def _check_opcodes(file: io.BytesIO) -> None:
    """Rejects a pickle that does more than describe tensors, or that requests excessive memory for its size."""
    start = file.tell()
    for opcode, argument, position in pickletools.genops(file):
        if opcode.name not in _OPCODES:
            raise ValueError(f"the opcode {opcode.name} is not allowed")
        # The unpickler allocates as many memo slots as the highest index.
        is_memo = opcode.name in ("BINPUT", "LONG_BINPUT")
        if (position or start) - start > _MAX_PICKLE_BYTES or (
            is_memo and int(argument or 0) > _MAX_PICKLE_BYTES // 4
        ):
            raise ValueError(f"a pickle of more than {_MAX_PICKLE_BYTES >> 20} MB")
    file.seek(start)


class _Unpickler(pickle.Unpickler):
    """Creates plain containers and descriptions of tensors, and nothing else."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module_name, global_name) == ("torch._utils", "_rebuild_tensor_v2"):
            # A bound method: unlike a function, it has no attributes that BUILD could set.
            return self._rebuild_tensor
        if module_name == "torch" and global_name in _DTYPES:
            return global_name
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is not allowed")

    def persistent_load(self, pid: Any, /) -> _Storage:
        kind, storage_type, key, _, num_elements, view = pid
        if kind != "storage" or storage_type not in _DTYPES or view is not None:
            raise pickle.UnpicklingError("a reference to something else than a storage")
        if type(key) is not str or type(num_elements) is not int or num_elements < 0:
            raise pickle.UnpicklingError("a storage without a key or a length")
        return _Storage(key, _DTYPES[storage_type], num_elements)

    def _rebuild_tensor(self, storage: Any, start: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
        if not isinstance(storage, _Storage) or len(shape) > _MAX_DIMENSIONS:
            raise pickle.UnpicklingError("a tensor without a storage, or of too many dimensions")
        if any(type(number) is not int or number < 0 for number in (start, *shape, *strides)):
            raise pickle.UnpicklingError("a tensor with a shape that is no shape")
        if len(shape) != len(strides) or math.prod(shape) > storage.num_elements:
            raise pickle.UnpicklingError("a tensor larger than its storage")
        # All elements lie between the first and this one.
        last = start + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if math.prod(shape) and last >= storage.num_elements:
            raise pickle.UnpicklingError("a tensor that reaches beyond its storage")
        return _Tensor(storage, start, tuple(shape), tuple(strides))


def _read_storages(
    content: bytes, position: int, tensors: Mapping[str, _Tensor], keys: Any
) -> dict[str, np.ndarray]:
    """Returns the storages by key; each must lie within the file, and the file must end with the last."""
    expected = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    if not isinstance(keys, list) or sorted(keys) != sorted(expected):
        raise ValueError("its list of storages is not that of its tensors")
    storages = {}
    for key in keys:
        storage = expected[key]
        (num_elements,) = np.frombuffer(content, _LENGTH, count=1, offset=position)
        if num_elements != storage.num_elements:
            raise ValueError(f"storage {key!r} has {num_elements} elements, expected {storage.num_elements}")
        position += _LENGTH.itemsize
        storages[key] = np.frombuffer(content, storage.dtype, count=storage.num_elements, offset=position)
        position += storages[key].nbytes
    if position != len(content):
        raise ValueError(f"{len(content) - position} bytes after the last storage")
    return storages


def _view(tensor: _Tensor, storages: Mapping[str, np.ndarray]) -> np.ndarray:
    elements = (
        storages[tensor.storage.key][tensor.start :]
        if math.prod(tensor.shape)
        else np.empty(0, tensor.storage.dtype)
    )
    itemsize = tensor.storage.dtype.itemsize
    strides = [itemsize * stride for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(elements, tensor.shape, strides, writeable=False)
    return view if sys.byteorder == "little" else view.astype(view.dtype.newbyteorder("="))
