import io
import pickle
import pickletools
import struct
from collections import OrderedDict

import numpy as np
import pytest

from shardstream.ingest.common.errors import DatasetError
from shardstream.train.models.torch_weights import load_torch_weights, parse_torch_weights

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


def tensor(array, *, key="0", start=0, shape=None, strides=None, num_elements=None, kind=None):
    shape = array.shape if shape is None else shape
    if strides is None:
        strides = tuple(stride // array.itemsize for stride in array.strides)
    num_elements = array.size if num_elements is None else num_elements
    storage = Reference("storage", kind or STORAGES[array.dtype.name], key, "cpu", num_elements, None)
    return Call(REBUILD, storage, start, tuple(shape), strides, False, OrderedDict())


def torch_file(tensors, storages, *, magic=0x1950A86A20F9469CFC6C, version=1001, machine=MACHINE, keys=None):
    parts = [dump(magic), dump(version), dump(machine), dump(tensors)]
    parts.append(dump(sorted(storages) if keys is None else keys))
    for key in sorted(storages):
        parts += [struct.pack("<q", storages[key].size), storages[key].tobytes()]
    return b"".join(parts)


ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


def plain_file(**options) -> bytes:
    return torch_file(OrderedDict(weight=tensor(ARRAY)), {"0": ARRAY}, **options)


def test_tensors_come_as_they_were_saved(tmp_path):
    counter = np.array(7, np.int64)
    tensors = OrderedDict(
        weight=tensor(ARRAY),
        transposed=tensor(ARRAY, shape=(3, 2), strides=(1, 3)),
        row=tensor(ARRAY, start=3, shape=(3,), strides=(1,)),
        counter=tensor(counter, key="1"),
        empty=tensor(ARRAY, shape=(0, 3), strides=(3, 1)),
    )
    path = tmp_path / "a.pth"
    path.write_bytes(torch_file(tensors, {"0": ARRAY, "1": counter}))
    found = load_torch_weights(path)
    assert list(found) == ["weight", "transposed", "row", "counter", "empty"]
    np.testing.assert_array_equal(found["weight"], ARRAY)
    np.testing.assert_array_equal(found["transposed"], ARRAY.T)
    np.testing.assert_array_equal(found["row"], ARRAY[1])
    assert (found["counter"].dtype, found["counter"][()], found["empty"].shape) == (np.int64, 7, (0, 3))
    with pytest.raises(ValueError, match="read-only"):
        found["weight"][0] = 1


def refused(content: bytes) -> str:
    with pytest.raises(DatasetError) as caught:
        parse_torch_weights(content, "a.pth")
    sentence = str(caught.value)
    assert sentence.startswith("a.pth: not a PyTorch file in the legacy layout, or corrupt: ")
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "pickle exhausted"),
        (b"PK\x03\x04" + bytes(100), "no newline found"),
        (plain_file(magic=5), "another magic number"),
        (plain_file(version=1002), "protocol version 1002, expected 1001"),
        (plain_file(machine={"little_endian": False}), "not written on a little-endian machine"),
        (plain_file(machine=[]), "not written on a little-endian machine"),
        (plain_file(keys=["1"]), "its list of storages is not that of its tensors"),
        (plain_file(keys=["0", "0"]), "its list of storages is not that of its tensors"),
        (plain_file() + b"x", "1 bytes after the last storage"),
        (torch_file([1, 2], {}), "not a dictionary of tensors"),
        (torch_file(OrderedDict(a=1), {}), "not a dictionary of tensors"),
    ],
)
def test_other_files_are_refused(content, reason):
    assert reason in refused(content)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"start": 1}, "a tensor that reaches beyond its storage"),
        ({"shape": (7,), "strides": (1,)}, "a tensor larger than its storage"),
        ({"shape": (2, 2), "strides": (5, 1)}, "a tensor that reaches beyond its storage"),
        # A terabyte out of one number.
        ({"shape": (1 << 40,), "strides": (0,)}, "a tensor larger than its storage"),
        ({"shape": (2, 3), "strides": (3,)}, "a tensor larger than its storage"),
        ({"start": -1}, "a tensor with a shape that is no shape"),
        ({"strides": (-3, 1)}, "a tensor with a shape that is no shape"),
        ({"shape": (2.0, 3)}, "the opcode BINFLOAT is not allowed"),
        ({"shape": ("2", 3)}, "a tensor with a shape that is no shape"),
        ({"shape": (1,) * 9, "strides": (1,) * 9}, "of too many dimensions"),
        ({"num_elements": -1}, "a storage without a key or a length"),
        ({"num_elements": 7}, "storage '0' has 6 elements, expected 7"),
        ({"kind": Global("torch", "HalfStorage")}, "torch.HalfStorage is not allowed"),
    ],
)
def test_a_tensor_lies_within_its_storage(options, reason):
    assert reason in refused(torch_file(OrderedDict(weight=tensor(ARRAY, **options)), {"0": ARRAY}))


def test_a_storage_lies_within_the_file():
    content = plain_file()
    lengths = range(0, len(content), 7)
    for length in lengths:
        refused(content[:length])
    # A length of 2**40 where the file says 6: nothing is allocated for it.
    start = len(content) - ARRAY.nbytes - 8
    assert "elements, expected 6" in refused(
        content[:start] + struct.pack("<q", 1 << 40) + content[start + 8 :]
    )


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
        ("shardstream.train.models.torch_weights", "parse_torch_weights"),
    ],
)
def test_nothing_else_is_named(module, name, capfd):
    hostile = OrderedDict(weight=Call(Global(module, name), "echo ran"))
    assert f"{module}.{name} is not allowed" in refused(torch_file(hostile, {}))
    assert "ran" not in capfd.readouterr().out


class Ran:
    def __reduce__(self):
        return print, ("ran",)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_pickles_of_any_protocol_run_nothing(protocol, capsys):
    content = plain_file()
    start = content.index(dump(MACHINE))
    refused(content[:start] + pickle.dumps(Ran(), protocol=protocol) + content[start:])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("pickled", "reason"),
    [
        # The memo would take 32 GB.
        (b"\x80\x02}r\xff\xff\xff\xffu.", "a pickle of more than 16 MB"),
        # Eight bytes long, by its own account 2 GB.
        (b"\x80\x02X\xff\xff\xff\x7f.", "expected 2147483647 bytes in a unicodestring4"),
        (b"\x80\x02N\x81.", "the opcode NEWOBJ is not allowed"),
        (b"(S'a'\nios\nsystem\n.", "the opcode STRING is not allowed"),
        (b"\x80\x020.", "the opcode POP is not allowed"),
    ],
)
def test_opcodes_that_need_no_name(pickled, reason):
    content = plain_file()
    start = content.index(dump(MACHINE))
    assert reason in refused(content[:start] + pickled)


def test_attributes_of_what_the_unpickler_uses_cannot_be_set():
    """BUILD with a pair sets attributes: of the function that rebuilds tensors, and of the class of dictionaries."""
    for target in (REBUILD, Global("collections", "OrderedDict"), STORAGES["float32"]):
        state = _dumped((None, {"__defaults__": 1}))
        content = plain_file()
        start = content.index(dump(MACHINE))
        refused(content[:start] + b"\x80\x02" + target.content + state + b"b." + content[start:])
    parse_torch_weights(plain_file(), "a.pth")


def test_the_file_of_the_tests_is_what_it_should_be():
    """The tests write pickles by hand: they hold what they are meant to hold."""
    opcodes = [opcode.name for opcode, _, _ in pickletools.genops(io.BytesIO(dump(tensor(ARRAY))))]
    assert {"GLOBAL", "BINPERSID", "REDUCE"} <= set(opcodes)
