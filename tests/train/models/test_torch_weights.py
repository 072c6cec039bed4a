import io
import pickle
import pickletools
import struct
from collections import OrderedDict

import numpy as np
import pytest

from shardstream.train.models.torch_weights import parse_torch_weights

MACHINE = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


class Global:
    """Is written as a name that PyTorch's pickles hold."""

    def __init__(self, module, name):
        self.name = f"{module}.{name}"
        self.content = f"c{module}\n{name}\n".encode()


REBUILD = Global("torch._utils", "_rebuild_tensor_v2")
STORAGES = {"float32": Global("torch", "FloatStorage"), "int64": Global("torch", "LongStorage")}


class Call:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


class Reference:
    def __init__(self, *content):
        self.content = content


def dump(value) -> bytes:
    """Writes what `torch.save` would, in protocol 2."""
    return b"\x80\x02" + _dumped(value) + b"."


def _dumped(value) -> bytes:
    match value:
        case Global():
            return value.content
        case Call():
            return _dumped(value.function) + _dumped(value.arguments) + b"R"
        case Reference():
            return _dumped(value.content) + b"Q"
        case tuple():
            return b"(" + b"".join(map(_dumped, value)) + b"t"
        case OrderedDict():
            items = b"".join(_dumped(key) + _dumped(item) for key, item in value.items())
            return _dumped(Call(Global("collections", "OrderedDict"))) + b"(" + items + b"u"
        case _:
            return pickle.dumps(value, protocol=2)[2:-1]


def tensor(array, *, key="0", start=0, shape=None, strides=None):
    shape = array.shape if shape is None else shape
    if strides is None:
        strides = tuple(stride // array.itemsize for stride in array.strides)
    storage = Reference("storage", STORAGES[array.dtype.name], key, "cpu", array.size, None)
    return Call(REBUILD, storage, start, tuple(shape), strides, False, OrderedDict())


def torch_file(tensors, storages):
    parts = [dump(0x1950A86A20F9469CFC6C), dump(1001), dump(MACHINE), dump(tensors), dump(sorted(storages))]
    for key in sorted(storages):
        parts += [struct.pack("<q", storages[key].size), storages[key].tobytes()]
    return b"".join(parts)


ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_tensors_come_as_they_were_saved():
    counter = np.array(7, np.int64)
    tensors = OrderedDict(
        weight=tensor(ARRAY),
        transposed=tensor(ARRAY, shape=(3, 2), strides=(1, 3)),
        row=tensor(ARRAY, start=3, shape=(3,), strides=(1,)),
        counter=tensor(counter, key="1"),
        empty=tensor(ARRAY, shape=(0, 3), strides=(3, 1)),
    )
    found = parse_torch_weights(torch_file(tensors, {"0": ARRAY, "1": counter}))
    assert list(found) == ["weight", "transposed", "row", "counter", "empty"]
    np.testing.assert_array_equal(found["weight"], ARRAY)
    np.testing.assert_array_equal(found["transposed"], ARRAY.T)
    np.testing.assert_array_equal(found["row"], ARRAY[1])
    assert (found["counter"].dtype, found["counter"][()], found["empty"].shape) == (np.int64, 7, (0, 3))
    with pytest.raises(ValueError, match="read-only"):
        found["weight"][0] = 1


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("collections", "namedtuple"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch", "DoubleStorage"),
        ("numpy", "ndarray"),
    ],
)
def test_nothing_else_is_named(module, name, capfd):
    hostile = OrderedDict(weight=Call(Global(module, name), "echo ran"))
    with pytest.raises(pickle.UnpicklingError, match=f"{module}.{name} is not allowed"):
        parse_torch_weights(torch_file(hostile, {}))
    assert "ran" not in capfd.readouterr().out


def test_the_file_of_the_tests_is_what_it_should_be():
    """The tests write pickles by hand: they hold what they are meant to hold."""
    opcodes = [opcode.name for opcode, _, _ in pickletools.genops(io.BytesIO(dump(tensor(ARRAY))))]
    assert {"GLOBAL", "BINPERSID", "REDUCE"} <= set(opcodes)
