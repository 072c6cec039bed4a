import json
import sys

from shardstream.train.__main__ import main


def test_a_run_from_the_command_line_prints_json(striped, tmp_path, capsys):
    argv = [
        str(striped.data_dir),
        "--run",
        str(tmp_path / "r"),
        "--epochs",
        "1",
        "--image-size",
        "8",
        "--json",
    ]
    assert main([*argv, "--model", "notebook", "--cache", "none"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["run"] == str(tmp_path / "r")
    assert {"best_epoch", "val_loss", "val_accuracy", "total_secs", "images_per_sec", "input_wait"} <= set(
        result
    )


def test_a_run_prints_a_table_and_the_folder(striped, tmp_path, capsys):
    argv = [str(striped.data_dir), "--run", str(tmp_path / "r"), "--epochs", "1", "--image-size", "8"]
    assert main([*argv, "--model", "notebook"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[:-1]] == [
        "model",
        "best epoch",
        "val_loss",
        "val_accuracy",
        "time",
        "rate",
        "checkpoints",
        "parameters",
    ]
    assert lines[-1] == str(tmp_path / "r")


def test_what_cannot_be_is_one_sentence_and_exit_code_2(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere"), "--run", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == (
        f"shardstream-train: {tmp_path / 'nowhere'}: no such folder; "
        f"make it with `shardstream-ingest build IMAGES {tmp_path / 'nowhere'}`\n"
    )
    assert main([str(tmp_path), "--run", str(tmp_path / "run"), "--epochs", "0"]) == 2
    assert capsys.readouterr().err == "shardstream-train: epochs must be at least 1, got 0\n"


def test_options_from_a_file(tmp_path, capsys):
    (tmp_path / "c.toml").write_text("batchsize = 3\n")
    assert main([str(tmp_path), "--run", "r", "--config", str(tmp_path / "c.toml")]) == 2
    assert "unknown key 'batchsize'; did you mean 'batch_size'?" in capsys.readouterr().err


def test_help_names_the_other_commands_and_what_the_model_of_the_notebook_costs(capsys):
    assert main(["--help"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "106 of its 108 GFLOP for one image of 300x300" in words
    for command in ("doctor Measures", "status Shows", "export Writes"):
        assert f"shardstream-train {command}" in words


HELP_WITHOUT_TENSORFLOW = """
import sys
from shardstream.train.__main__ import main
for argv in (
    ["--help"],
    ["data", "--run", "r", "--epoch", "3"],
    ["nowhere", "--run", "r"],
    ["doctor", "--help"],
    ["doctor", "data", "--second", "3"],
    ["doctor", "nowhere"],
):
    try:
        main(argv)
    except SystemExit:
        pass
print([name for name in ("tensorflow", "keras", "matplotlib") if name in sys.modules])
"""


def test_help_typos_and_missing_folders_answer_without_tensorflow(tmp_path):
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", HELP_WITHOUT_TENSORFLOW], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
