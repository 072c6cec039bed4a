import dataclasses
import json
import re
import zipfile

import numpy as np
import pytest

from shardstream.ingest.common.errors import DatasetError
from shardstream.train.distributed.strategy import precision_scope
from shardstream.train.models.build import build_model
from shardstream.train.runs.run_folder import RunFolder
from shardstream.train.runs.saved_model import ModelInfo, ModelWriter, load_model

INFO = ModelInfo(
    class_names=("a", "b", "c"),
    display_names=("가", "나", "<다>"),
    image_size=16,
    resize="pad",
    stored_size=None,
    encoding="jpeg",
    quality=95,
    model="small",
    dataset_fingerprint="f" * 64,
    num_parameters=7,
    precision="mixed_bfloat16",
    versions={"keras": "3"},
)
PICTURES = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)


@pytest.fixture
def run_dir(tmp_path):
    model = build_model("small", image_size=16, num_classes=3, seed=0)
    ModelWriter(model).write(model, RunFolder(tmp_path).best_model)
    INFO.save(tmp_path)
    return tmp_path


def test_model_info_survives_the_file(run_dir):
    assert ModelInfo.load(run_dir) == INFO


@pytest.mark.parametrize(
    ("name", "policy", "size"),
    [
        ("small", "mixed_float16", 16),
        ("small", "mixed_bfloat16", 16),
        ("MobileNetV2", "mixed_float16", 32),
    ],
)
def test_a_model_of_any_precision_is_saved_as_a_plain_float32_model(tmp_path, name, policy, size):
    with precision_scope(policy):
        free = None if name == "small" else size
        trained = build_model(name, image_size=free, num_classes=3, seed=0, synchronized=True)
    twin = build_model(name, image_size=size, num_classes=3, seed=5)
    ModelWriter(twin).write(trained, RunFolder(tmp_path).best_model)
    dataclasses.replace(INFO, image_size=size).save(tmp_path)
    loaded, _ = load_model(tmp_path)
    pictures = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), np.uint8)
    # In float32, bit for bit what the float32 model of the same weights says.
    np.testing.assert_array_equal(np.asarray(loaded(pictures)), np.asarray(twin(pictures)))
    for mine, theirs in zip(loaded.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert {layer.dtype_policy.name for layer in loaded.layers} == {"float32"}
    assert not any(getattr(layer, "synchronized", False) for layer in loaded.layers)
    # Not the same to the last bit: half precision rounds.
    np.testing.assert_allclose(loaded(pictures), trained(pictures, training=False), atol=0.05)


def test_a_loaded_model_is_fixed_however_it_is_called(run_dir):
    model, _ = load_model(run_dir)
    expected = model.predict(PICTURES.astype(np.float32), verbose=0)
    np.testing.assert_allclose(model(PICTURES), expected, atol=1e-6)
    assert expected.dtype == np.float32
    np.testing.assert_allclose(expected.sum(axis=1), 1, rtol=1e-5)


def test_models_load_with_nothing_but_keras(run_dir):
    with zipfile.ZipFile(RunFolder(run_dir).best_model) as file:
        config = file.read("config.json").decode()
    modules = set(re.findall(r'"module": "([^"]*)"', config))
    assert modules
    assert all(module.split(".")[0] == "keras" for module in modules)
    assert set(re.findall(r'"registered_name": ("[^"]*"|null)', config)) <= {"null", '"Functional"'}


def test_a_run_without_a_model(tmp_path):
    RunFolder(tmp_path / "run").create({})
    for path, reason in [
        ("run", "this run has no model yet; it has to finish its first epoch"),
        (
            "nowhere",
            f"no such run folder; make one with `shardstream-train DATA --run {tmp_path / 'nowhere'}`",
        ),
        (
            ".",
            "no config.json and no model.json in it, so it is not a run folder made by `shardstream-train`",
        ),
    ]:
        with pytest.raises(DatasetError, match=f"^{re.escape(f'{tmp_path / path}: {reason}')}$"):
            load_model(tmp_path / path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_size": "16"}, 'image_size: unusable value "16"'),
        ({"resize": "squeeze"}, 'resize: unusable value "squeeze"'),
        ({"class_names": "abc"}, 'class_names: unusable value "abc"'),
        ({"display_names": ["가"]}, 'display_names: unusable value ["가"]'),
        ({"color": 1}, "keys missing or unknown: color"),
    ],
)
def test_a_damaged_model_info_is_named(run_dir, change, reason):
    path = RunFolder(run_dir).model_info
    path.write_text(json.dumps(dataclasses.asdict(INFO) | change))
    with pytest.raises(DatasetError, match=re.escape(f"{path}: {reason}")):
        ModelInfo.load(run_dir)


def test_a_model_info_that_is_no_json(run_dir):
    RunFolder(run_dir).model_info.write_text("{")
    with pytest.raises(DatasetError, match=r"model\.json: not JSON"):
        ModelInfo.load(run_dir)


def test_a_damaged_model_is_refused_in_one_sentence(run_dir):
    path = RunFolder(run_dir).best_model
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DatasetError, match=re.escape(f"{path}: refused: not a whole .keras file; ")):
        load_model(run_dir)


def test_weights_of_another_model_are_refused_in_one_sentence(run_dir):
    path = RunFolder(run_dir).best_model
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content[:5000] if name.endswith(".h5") else content)
    with pytest.raises(
        DatasetError, match=re.escape(f"{path}: cannot be read: Unable to synchronously open file")
    ) as caught:
        load_model(run_dir)
    assert "\n" not in str(caught.value)


def test_a_model_of_another_shape_is_refused(run_dir):
    dataclasses.replace(INFO, image_size=20).save(run_dir)
    with pytest.raises(
        DatasetError, match=re.escape("takes (None, 16, 16, 3) and gives (None, 3), but model.json")
    ):
        load_model(run_dir)


def test_a_model_file_that_is_gone(run_dir):
    RunFolder(run_dir).best_model.unlink()
    with pytest.raises(DatasetError, match=r"best\.keras: no such file, though model.json is there"):
        load_model(run_dir)
