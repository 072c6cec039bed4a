"""Exported models say what best.keras says, and tell what their classes are."""

import json
import shutil

import numpy as np
import pytest

from shardstream.train.__main__ import main
from shardstream.train.export import run_tflite
from shardstream.train.runs.saved_model import load_model


@pytest.fixture(scope="module")
def run(striped, tmp_path_factory):
    """A run of one epoch."""
    run = tmp_path_factory.mktemp("export") / "run"
    arguments = ["--run", str(run), "--epochs", "1", "--batch-size", "8", "--cache", "none"]
    assert main([str(striped.data_dir), *arguments]) == 0
    return run


@pytest.fixture(scope="module")
def images(run):
    _, info = load_model(run)
    size = info.image_size
    return np.random.default_rng(0).integers(0, 256, (20, size, size, 3), np.uint8)


@pytest.fixture(scope="module")
def expected(run, images):
    model, _ = load_model(run)
    return np.asarray(model(images, training=False))


def predict(path, kind, images):
    """What another program would say with the file alone."""
    import tensorflow as tf

    if kind == "savedmodel":
        serve = tf.saved_model.load(str(path)).signatures["serving_default"]
        return serve(images=tf.constant(images))["probabilities"].numpy()
    if kind == "tflite":
        interpreter = tf.lite.Interpreter(str(path / "model.tflite"))
        assert interpreter.get_input_details()[0]["dtype"] == np.uint8
        return run_tflite(interpreter, images)
    if kind == "keras":
        import keras

        return np.asarray(keras.saving.load_model(path / "model.keras")(images, training=False))
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(path / "model.onnx"))
    return session.run(None, {session.get_inputs()[0].name: images})[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", ["savedmodel", "tflite", "keras", "onnx"])
def test_an_export_predicts_what_the_model_predicts(run, images, expected, kind, capsys):
    if kind == "onnx":
        pytest.importorskip("tf2onnx")
    for _ in range(2):  # The second one replaces the first.
        assert main(["export", str(run), "--format", kind, "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    folder = run / "export" / kind
    assert result["path"].startswith(str(folder))
    found = predict(folder, kind, images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)
    # One image at a time as well.
    np.testing.assert_allclose(predict(folder, kind, images[:1]), expected[:1], atol=1e-4)
    _, info = load_model(run)
    description = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    assert description["class_names"] == list(info.class_names)
    assert description["display_names"] == list(info.display_names)
    assert description["input"]["shape"] == [None, info.image_size, info.image_size, 3]
    assert (description["input"]["dtype"], description["input"]["resize"]) == ("uint8", info.resize)
    assert {"keras", "tensorflow", "shardstream"} <= description["versions"].keys()
    assert [path.name for path in (run / "export").iterdir() if path.name.startswith(".")] == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_half_precision_is_smaller_and_says_what_it_costs(run, images, expected, capsys):
    assert main(["export", str(run), "--format", "tflite", "--json"]) == 0
    full = json.loads(capsys.readouterr().out)
    assert main(["export", str(run), "--format", "tflite", "--quantize", "float16", "--json"]) == 0
    half = json.loads(capsys.readouterr().out)
    assert half["num_bytes"] < 0.7 * full["num_bytes"]
    assert full["cost"] is None
    assert half["cost"]["num_examples"] > 0
    assert abs(half["cost"]["accuracy"] - half["cost"]["accuracy_quantized"]) < 0.1
    assert 0 < half["cost"]["max_difference"] < 0.05
    found = predict(run / "export/tflite", "tflite", images)
    np.testing.assert_allclose(found, expected, atol=0.02)
    description = json.loads((run / "export/tflite/labels.json").read_text(encoding="utf-8"))
    assert description["quantization"] == "float16"
    assert description["quantization_cost"] == half["cost"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_without_its_dataset_the_cost_is_not_known(run, tmp_path, capsys, caplog):
    moved = tmp_path / "run"
    shutil.copytree(run, moved, ignore=shutil.ignore_patterns("export"))
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(config | {"data_dir": str(tmp_path / "gone")}))
    assert main(["export", str(moved), "--format", "tflite", "--quantize", "float16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cost"] is None
    assert "not measured" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{empty}", "--format", "keras"], "empty: no config.json and no model.json in it"),
        (["{empty}/none", "--format", "keras"], "none: no such run folder"),
        (
            ["{run}/best.keras", "--format", "keras"],
            "best.keras: a file, expected a run folder",
        ),
        (
            ["{run}", "--format", "savedmodel", "--quantize", "float16"],
            "--quantize float16 is for --format tflite",
        ),
    ],
)
def test_what_cannot_be_exported(run, tmp_path, capsys, arguments, sentence):
    (tmp_path / "empty").mkdir()
    places = {"run": run, "empty": tmp_path / "empty"}
    assert main(["export", *(word.format(**places) for word in arguments)]) == 2
    assert sentence in capsys.readouterr().err


def test_an_unknown_format_names_those_there_are(run, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(run), "--format", "pickle"])
    printed = capsys.readouterr()
    assert all(name in printed.err + printed.out for name in ("savedmodel", "tflite", "onnx", "keras"))


def test_onnx_without_its_package_says_what_to_install(run, capsys, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["export", str(run), "--format", "onnx"]) == 2
    assert "pip install '.[onnx]'" in capsys.readouterr().err


def test_what_is_no_export_stays(run, tmp_path, capsys):
    moved = tmp_path / "run"
    shutil.copytree(run, moved, ignore=shutil.ignore_patterns("export"))
    (moved / "export/keras").mkdir(parents=True)
    (moved / "export/keras/notes.txt").write_text("mine")
    assert main(["export", str(moved), "--format", "keras"]) == 2
    assert "export/keras: holds something that is no export" in capsys.readouterr().err
    assert (moved / "export/keras/notes.txt").read_text() == "mine"


def test_a_link_at_the_folder_of_exports_is_not_followed(run, tmp_path, capsys):
    moved = tmp_path / "run"
    shutil.copytree(run, moved, ignore=shutil.ignore_patterns("export"))
    (tmp_path / "elsewhere").mkdir()
    (moved / "export").symlink_to(tmp_path / "elsewhere")
    assert main(["export", str(moved), "--format", "keras"]) == 2
    assert "export: a link, expected a folder or nothing; remove the link" in capsys.readouterr().err
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
    ("activation", "sentence"),
    [
        (None, "for an image, expected 3 probabilities that add up to 1"),
        (
            "softmax",
            "cannot be read: no such operation; this model cannot be written as keras; try another --format",
        ),
    ],
)
def test_a_model_that_cannot_be_written_is_refused(run, tmp_path, capsys, monkeypatch, activation, sentence):
    import keras

    def fail(*_):
        raise NotImplementedError("no such operation\nand a page about it")

    moved = tmp_path / "run"
    shutil.copytree(run, moved, ignore=shutil.ignore_patterns("export"))
    size = load_model(run)[1].image_size
    layers = [keras.layers.Flatten(), keras.layers.Dense(3, activation=activation)]
    keras.Sequential([keras.Input((size, size, 3)), *layers]).save(moved / "best.keras")
    monkeypatch.setattr("shardstream.train.export._write", fail)
    assert main(["export", str(moved), "--format", "keras"]) == 2
    printed = capsys.readouterr().err.replace("operation and a page about it", "operation")
    assert sentence in printed
    assert "\nand a page" not in printed
