"""Model files that were made to do harm: each refused in one sentence, before anything of it is done."""

import json
import os
import re
import zipfile

import h5py
import keras
import numpy as np
import pytest

from shardstream.ingest.common.errors import DatasetError
from shardstream.train.models.build import build_model
from shardstream.train.runs.earlier_weights import begin_with
from shardstream.train.runs.model_check import check_weights_file
from shardstream.train.runs.run_folder import RunFolder
from shardstream.train.runs.saved_model import ModelInfo, check_probabilities, load_model

SIZE = 16
WHAT_TO_DO = "; take a model that `shardstream-train` made"


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """The files inside of a good model."""
    path = tmp_path_factory.mktemp("model") / "best.keras"
    build_model("small", image_size=SIZE, num_classes=3, seed=0).save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def run_dir(tmp_path):
    ModelInfo(
        class_names=("a", "b", "c"),
        display_names=("a", "b", "c"),
        image_size=SIZE,
        resize="pad",
        stored_size=None,
        encoding="jpeg",
        quality=95,
        model="small",
        dataset_fingerprint="f",
        num_parameters=7,
        precision="float32",
        versions={},
    ).save(tmp_path)
    return tmp_path


def pack(run_dir, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(RunFolder(run_dir).best_model, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def refused(run_dir, reason):
    with pytest.raises(DatasetError) as caught:
        load_model(run_dir)
    assert str(caught.value).startswith(f"{RunFolder(run_dir).best_model}: refused: ")
    assert re.search(reason, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def with_first_layer(members, **layer):
    """Returns the members with another layer behind the input, and a trap in its config."""
    config = json.loads(members["config.json"])
    target = next(each for each in config["config"]["layers"] if each["class_name"] == "Rescaling")
    target.update(layer)
    return members | {"config.json": json.dumps(config)}


def test_a_good_model_is_loaded_packed_again_too(run_dir, members):
    pack(run_dir, members, zipfile.ZIP_DEFLATED)
    model, _ = load_model(run_dir)
    assert model(np.zeros((1, SIZE, SIZE, 3))).shape == (1, 3)


def test_a_lambda_that_would_run_code(run_dir, tmp_path):
    sign = tmp_path / "it_ran"
    is_armed = False

    def harm(x):
        if is_armed:
            os.mkdir(sign)  # noqa: PTH102 - By a name that the loaded code knows.
        return x[:, 0, 0, :]

    inputs = keras.Input((SIZE, SIZE, 3))
    keras.Sequential([inputs, keras.layers.Lambda(harm)]).save(RunFolder(run_dir).best_model)
    is_armed = True
    refused(run_dir, "its layer 'Lambda' would run code that comes with the file" + WHAT_TO_DO)
    assert not sign.exists()


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ({"class_name": "TFSMLayer"}, "'TFSMLayer' would run code"),
        ({"class_name": "TorchModuleWrapper"}, "'TorchModuleWrapper' would run code"),
        ({"class_name": "StringLookup"}, "'StringLookup' reads other files"),
        ({"module": "os", "class_name": "system"}, "'system' is of 'os', and only Keras's own"),
        ({"module": "builtins", "class_name": "exec"}, "cannot be loaded in Keras's safe mode"),
        (
            {"module": "shardstream.train.engine.loop", "class_name": "Loop"},
            "'Loop' is of 'shardstream.train.engine.loop'",
        ),
        ({"module": "keras.utils", "class_name": "get_file"}, "cannot be loaded in Keras's safe mode"),
        ({"module": "keras.layers", "class_name": "NoSuch"}, "cannot be loaded in Keras's safe mode"),
        (
            {"config": {"scale": {"class_name": "__lambda__", "config": {"value": "x"}}}},
            "'__lambda__' would run code",
        ),
    ],
)
def test_what_is_no_plain_layer(run_dir, members, layer, reason):
    pack(run_dir, with_first_layer(members, **layer))
    refused(run_dir, reason)


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "assets/x", "a\x1b[31m"])
def test_other_files_in_the_archive(run_dir, members, name, tmp_path):
    pack(run_dir, members | {name: b"evil"})
    refused(run_dir, "it holds other files than a model does")
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5", "metadata.json"])
def test_files_that_lack(run_dir, members, name):
    pack(run_dir, {key: content for key, content in members.items() if key != name})
    refused(run_dir, f"or lacks one: '{name}'")


def test_the_same_file_twice(run_dir, members):
    pack(run_dir, members)
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(RunFolder(run_dir).best_model, "a") as archive,
    ):
        archive.writestr("config.json", b"{}")
    refused(run_dir, "it holds other files")


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5", "metadata.json"])
def test_an_archive_that_unpacks_to_a_thousand_times_its_size(run_dir, members, name):
    pack(run_dir, members | {name: bytes(200 << 20)}, zipfile.ZIP_DEFLATED)
    assert RunFolder(run_dir).best_model.stat().st_size < 4 << 20
    refused(run_dir, f"{name} unpacks to 209,715,200 bytes")


def test_layers_that_ask_for_more_memory_than_any_machine_has(run_dir, members):
    config = json.loads(members["config.json"])
    (dense,) = (each for each in config["config"]["layers"] if each["class_name"] == "Dense")
    dense["config"]["units"] = 10**12
    pack(run_dir, members | {"config.json": json.dumps(config)})
    refused(run_dir, r"its layers ask for 129,000,000,305,010 weights, and it holds 1,\d+,\d+ bytes")
    # What was refused leaves nothing behind that a later model would be made with.
    pack(run_dir, members)
    load_model(run_dir)


@pytest.mark.parametrize("config", [b"[" * 200_000, b"{", b"null", b"\xff", b'{"class_name": 7}'])
def test_a_config_that_is_none(run_dir, members, config):
    pack(run_dir, members | {"config.json": config})
    sentence = re.escape(str(RunFolder(run_dir).best_model)) + (
        ": (not JSON|cannot be read|refused: config.json describes no model)[^\n]*; take a model that [^\n]*$"
    )
    with pytest.raises(DatasetError, match=sentence):
        load_model(run_dir)


def test_what_is_no_file_in_place_of_the_model(run_dir, members):
    path = RunFolder(run_dir).best_model
    path.mkdir()  # Keras would load a folder, without these checks.
    for name, content in members.items():
        (path / name).write_bytes(content)
    with pytest.raises(DatasetError, match="no such file"):
        load_model(run_dir)
    path.rename(run_dir / "folder")
    os.mkfifo(path)  # Reading it would wait for ever.
    with pytest.raises(DatasetError, match="no such file"):
        load_model(run_dir)


def test_a_file_of_hdf5_which_may_hold_pickled_code(run_dir):
    keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Flatten()]).save(run_dir / "old.h5")
    (run_dir / "old.h5").rename(RunFolder(run_dir).best_model)
    refused(run_dir, "not a whole .keras file")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_size": 10**9}, "image_size: unusable value 1000000000"),
        ({"image_size": 0}, "image_size: unusable value 0"),
        ({"image_size": True}, "image_size: unusable value true"),
        ({"resize": []}, r"resize: unusable value \[\]"),
        ({"num_parameters": "7"}, 'num_parameters: unusable value "7"'),
        ({"versions": [1]}, r"versions: unusable value \[1\]"),
        ({"model": {"a": 1}}, 'model: unusable value {"a": 1}'),
    ],
)
def test_a_hostile_model_info(run_dir, change, reason):
    path = RunFolder(run_dir).model_info
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DatasetError, match=reason):
        ModelInfo.load(run_dir)


def test_a_model_info_that_is_nested_without_end(run_dir):
    RunFolder(run_dir).model_info.write_text("[" * 200_000)
    with pytest.raises(DatasetError, match=r"model\.json: cannot be read: nested too deeply; train again"):
        ModelInfo.load(run_dir)


def test_more_objects_than_any_model_has(run_dir, members):
    config = json.loads(members["config.json"])
    config["config"]["layers"] += [{"class_name": "Activation"}] * 40_000
    pack(run_dir, members | {"config.json": json.dumps(config)})
    refused(run_dir, "describes more than 40,000 objects")


def test_an_archive_that_lies_about_the_sizes_in_it(run_dir, members):
    path = RunFolder(run_dir).best_model
    pack(run_dir, members | {"metadata.json": bytes(200 << 20)}, zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"metadata.json"))
    content[entry + 20 : entry + 24] = (100 << 20).to_bytes(4, "little")
    path.write_bytes(content)
    refused(run_dir, "its parts are larger than the file")


def test_layers_whose_outputs_are_far_larger_than_images(run_dir):
    layers = [keras.layers.UpSampling2D(120), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    keras.Sequential([keras.Input((SIZE, SIZE, 3)), *layers]).save(RunFolder(run_dir).best_model)
    refused(run_dir, r"its layer 'up_sampling2d\w*' makes 44,236,800 bytes of one image")


@pytest.mark.parametrize("link", ["external", "fill values"])
def test_weights_of_hdf5_that_are_not_in_the_file(tmp_path, link):
    path = tmp_path / "a.weights.h5"
    with h5py.File(path, "w") as file:
        if link == "external":
            file["w"] = h5py.ExternalLink("/dev/zero", "/x")
        else:
            file.create_dataset("w", (40_000, 40_000), "f4", chunks=(100, 100), compression="gzip")
    with pytest.raises(DatasetError, match=r"a\.weights\.h5: refused: its weight 'w'"):
        check_weights_file(path)


def test_weights_of_a_keras_file_are_looked_at_as_a_model_is(tmp_path, members):
    pack(tmp_path, members | {"evil": b""})
    with pytest.raises(DatasetError, match="it holds other files than a model does"):
        begin_with(
            build_model("small", image_size=SIZE, num_classes=3, seed=0), str(tmp_path / "best.keras"), "abc"
        )


def test_a_model_that_gives_a_dict(run_dir):
    inputs = keras.Input((SIZE, SIZE, 3))
    outputs = {"a": keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(inputs))}
    keras.Model(inputs, outputs).save(RunFolder(run_dir).best_model)
    with pytest.raises(DatasetError, match=r"but model\.json says"):
        load_model(run_dir)


@pytest.mark.parametrize(
    "values", [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [2.0, -1.0, 0.0], [np.nan] * 3, [0.5, 0.5]]
)
def test_what_is_no_probability_for_each_class(values):
    with pytest.raises(
        DatasetError, match=r"m: gives .* for an image, expected 3 probabilities that add up to 1"
    ):
        check_probabilities(np.array([[0.2, 0.3, 0.5][: len(values)], values]), num_classes=3, name="m")
