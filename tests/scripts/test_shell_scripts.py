import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SH_SCRIPTS = ["bootstrap", "check", "demo", "faults/bare_machine.sh", "fix", "lock", "test"]


@pytest.mark.parametrize("name", [*(f"scripts/{name}" for name in SH_SCRIPTS), ".ci/run"])
def test_scripts_are_executable(name):
    assert os.access(ROOT / name, os.X_OK)


@pytest.mark.parametrize("name", SH_SCRIPTS)
def test_scripts_are_posix_and_stop_at_errors(name):
    lines = (ROOT / "scripts" / name).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/bin/sh"
    assert lines[1].startswith("# ")
    assert "set -eu" in lines
    parsed = subprocess.run(["sh", "-n", ROOT / "scripts" / name], capture_output=True, text=True)
    assert (parsed.returncode, parsed.stderr) == (0, "")


def test_ci_parses_and_stops_at_errors():
    assert "set -euo pipefail" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert subprocess.run(["bash", "-n", ROOT / ".ci/run"]).returncode == 0


def test_a_suite_that_the_bare_machine_does_not_know_is_told():
    result = subprocess.run(
        [ROOT / "scripts/faults/bare_machine.sh", "woody"], capture_output=True, text=True
    )
    sentence = "takes bookworm or trixie, then arguments of scripts/test; found 'woody'"
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"bare machine: {sentence}\n")


def test_the_workflow_does_nothing_but_call_ci_run():
    text = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    steps = [line.strip() for line in text.splitlines() if line.strip().startswith("- ")]
    assert steps == ["- uses: actions/checkout@v4", "- run: .ci/run"]
