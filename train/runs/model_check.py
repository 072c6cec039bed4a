"""Checks a model file before Keras deserializes it.

Keras's safe mode refuses Lambda layers and pickled code. It does load layers that bring a program in a folder of their
own (TFSMLayer), unpacks any other members of the archive, and allocates as much memory as the file asks for.
"""

import io
import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import keras

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.common.safe_files import open_regular, parse_errors

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = {_CONFIG, _WEIGHTS, "metadata.json"}

# Keras does not compress. Repacking a model saves a few per cent; a zip bomb has a factor of 1,000.
_MAX_UNPACKED = 20
_MAX_CONFIG_BYTES = 8 << 20  # EfficientNetB7 has 1 MB.

# Layers that run a program contained in the file, or read other files on this machine.
_PROGRAMS = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "__lambda__"}
_READERS = {"StringLookup", "IntegerLookup", "TextVectorization", "Hashing"}

# A weight takes 4 bytes in the file, 2 in half precision; the smallest files are mostly header.
_MIN_WEIGHT_BYTES, _HEADER_BYTES = 1, 1 << 20
# Per image, of which 32 are predicted at a time. VGG produces 21 values per input value, 13 MB at 224 pixels.
_MAX_ACTIVATION_BYTES, _MAX_GROWTH = 32 << 20, 64
# NASNetLarge, the largest model tested of keras.applications, has 5,152 objects, including initializers and the like.
_MAX_OBJECTS = 40_000
_REMEDY = "take a model that `shardstream-train` made"


def check_model_file(path: Path) -> None:
    """Refuses a file that is not a plain model of Keras's own layers.

    Raises:
        DatasetError: It would run code of its own, is corrupt, or would need far more memory than its size.
    """
    with parse_errors(path, _REMEDY), open_regular(path):
        pass  # Opening a pipe would block.
    # Keras also reads HDF5 files, which need other checks.
    if not zipfile.is_zipfile(path):
        raise _refusal(path, "not a whole .keras file")
    # A corrupt archive makes the reader raise any of BadZipFile, zlib.error, NotImplementedError, RecursionError.
    with parse_errors(path, _REMEDY), zipfile.ZipFile(path) as archive:
        _check_members(path, archive)
        config = json.loads(archive.read(_CONFIG))
        weights_bytes = archive.getinfo(_WEIGHTS).file_size
        if not isinstance(config, dict):
            raise _refusal(path, f"{_CONFIG} describes no model")
        # The compile config is not needed here, and may refer to the user's own losses and metrics.
        config.pop("compile_config", None)
        _check_objects(path, config)
        _check_arrays(path, io.BytesIO(archive.read(_WEIGHTS)))
        _check_size(path, config, weights_bytes)


def check_weights_file(path: Path) -> None:
    """Refuses a file given by `--weights`, `.keras` or `.h5`, if loading it would do more than read its weights.

    Raises:
        DatasetError: As `check_model_file` does.
    """
    if path.suffix == ".keras":
        check_model_file(path)
    elif path.suffix == ".h5":
        with parse_errors(path, _REMEDY), open_regular(path) as file:
            _check_arrays(path, file)


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    members = archive.infolist()
    names = [member.filename for member in members]
    if set(names) != _MEMBERS or len(names) != len(_MEMBERS):
        odd = sorted(set(names) - _MEMBERS)[:1] or sorted(_MEMBERS - set(names))[:1] or names[:1]
        raise _refusal(path, f"it holds other files than a model does, or lacks one: {odd[0]!r}")
    if sum(member.compress_size for member in members) > path.stat().st_size:
        raise _refusal(path, "its parts are larger than the file that holds them")
    for member in members:
        most = _MAX_UNPACKED * member.compress_size + _HEADER_BYTES
        if member.file_size > most or (member.filename == _CONFIG and member.file_size > _MAX_CONFIG_BYTES):
            raise _refusal(path, f"{member.filename} unpacks to {member.file_size:,} bytes")


def _check_objects(path: Path, config: Any) -> None:
    for number, found in enumerate(_objects(config)):
        if number >= _MAX_OBJECTS:
            raise _refusal(path, f"{_CONFIG} describes more than {_MAX_OBJECTS:,} objects")
        name, module = found["class_name"], found.get("module")
        if name in _PROGRAMS:
            raise _refusal(path, f"its layer {name!r} would run code that comes with the file")
        if name in _READERS:
            raise _refusal(path, f"its layer {name!r} reads other files")
        # "builtins" marks a plain function by name, such as "relu"; None is Keras's own notation, such as tensors.
        if module is not None and module != "builtins" and str(module).split(".")[0] != "keras":
            raise _refusal(path, f"{name!r} is of {module!r}, and only Keras's own layers are loaded")


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yields every serialized object, at any depth; not by recursion, whose limit a file could exceed."""
    todo = [config]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            todo += value.values()
        elif isinstance(value, list):
            todo += value


def _check_arrays(path: Path, weights: BinaryIO) -> None:
    """Compares the weight arrays with the bytes stored for them: HDF5 can declare any size without storing it."""
    import h5py

    def check(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            num_bytes, stored = item.size * item.dtype.itemsize, item.id.get_storage_size()
            if item.external or item.is_virtual:
                raise _refusal(path, f"its weight {name!r} lies in another file")
            if num_bytes > _MAX_UNPACKED * stored + _HEADER_BYTES:
                raise _refusal(
                    path, f"its weight {name!r} has {num_bytes:,} bytes, {stored:,} of them in the file"
                )

    outside: list[str] = []  # An exception raised while visiting links is replaced by another one.

    def note_link(name: str, link: object) -> None:
        if isinstance(link, h5py.ExternalLink):
            outside.append(name)

    with h5py.File(weights, "r") as file:
        file.visititems_links(note_link)
        if outside:
            raise _refusal(path, f"its weight {outside[0]!r} lies in another file")
        file.visititems(check)


def _check_activations(path: Path, model: keras.Model) -> None:
    """Refuses layers whose output for one image is larger than in any image model."""
    sides: Any = model.input_shape
    input_bytes = 4 * math.prod(side or 1 for side in sides) if isinstance(sides, tuple) else 0
    most = max(_MAX_ACTIVATION_BYTES, _MAX_GROWTH * input_bytes)
    todo: list[Any] = [model]
    while todo:
        layer = todo.pop()
        todo += getattr(layer, "layers", [])
        for node in getattr(layer, "_inbound_nodes", []):
            for tensor in node.output_tensors:
                num_bytes = 4 * math.prod(side or 1 for side in tensor.shape)
                if num_bytes > most:
                    raise _refusal(path, f"its layer {layer.name!r} makes {num_bytes:,} bytes of one image")


def _check_size(path: Path, config: dict[str, Any], weights_bytes: int) -> None:
    """Compares the weights that the layers would create with those in the file, before memory is allocated for them."""
    try:
        # In this scope a layer computes the shapes of its weights and creates none.
        with keras.StatelessScope(initialize_variables=False):
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
        if not isinstance(model, keras.Model):
            raise _refusal(path, f"{_CONFIG} describes no model")
        num_weights = sum(math.prod(variable.shape) for variable in model.variables)
    except DatasetError:
        keras.utils.clear_session()
        raise
    except Exception as error:
        # Otherwise the weights would be created at the next use.
        keras.utils.clear_session()
        reason = str(error).strip().split("\n", 1)[0][:200]
        raise _refusal(path, f"cannot be loaded in Keras's safe mode: {reason}") from error
    if _MIN_WEIGHT_BYTES * num_weights > weights_bytes + _HEADER_BYTES:
        keras.utils.clear_session()
        raise _refusal(
            path, f"its layers ask for {num_weights:,} weights, and it holds {weights_bytes:,} bytes of them"
        )
    try:
        _check_activations(path, model)
    except DatasetError:
        keras.utils.clear_session()
        raise


def _refusal(path: Path, reason: str) -> DatasetError:
    return DatasetError(f"{path}: refused: {reason}; {_REMEDY}")
