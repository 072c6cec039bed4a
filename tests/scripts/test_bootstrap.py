"""scripts/bootstrap on a copy of the repository's skeleton, with a stand-in for Python that writes down its calls."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ["cat", "cksum", "cp", "dirname", "env", "find", "id", "mkdir", "rm", "sh", "tail", "touch", "true"]

FAKE_PYTHON = """#!/bin/sh
echo "$*" >>"$CALLS"
case $* in
  *"sys.version_info"*) [ ! -e "$CALLS.too-old" ] ;;
  "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  *"import cv2"*) [ ! -e "$CALLS.no-libgl" ] || [ -e .venv/headless ] ;;
  *"-r requirements.lock") for number in 1 2 3 4 5 6 7 8 9 10 11; do echo "Collecting package-$number"; done
    echo "Installing collected packages: package-1" ;;
  *requirements-headless.lock*) touch .venv/headless ;;
  *requirements-gpu.lock*) [ ! -e "$CALLS.no-cuda" ] || exit 1 ;;
  *requirements-dev.lock*) [ ! -e "$CALLS.offline" ] || { echo "no route to the registry"; exit 1; } ;;
esac
"""


class Skeleton:
    """A repository with scripts/bootstrap and what it reads, and a PATH that holds no real Python."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path / "my repository"
        self.path = tmp_path / "path"
        self.calls_file = tmp_path / "calls"
        (self.root / "scripts").mkdir(parents=True)
        self.path.mkdir()
        for name in ("pyproject.toml", "scripts/bootstrap"):
            shutil.copy(ROOT / name, self.root / name)
        for lock in ROOT.glob("requirements*.lock"):
            shutil.copy(lock, self.root)
        for tool in TOOLS:
            (self.path / tool).symlink_to(shutil.which(tool))

    def add_python(self, name: str = "python3") -> None:
        self.add(name, FAKE_PYTHON)

    def add(self, name: str, program: str) -> None:
        """Puts a stand-in for a program on the PATH, in the place of what is there."""
        (self.path / name).unlink(missing_ok=True)
        (self.path / name).write_text(program)
        (self.path / name).chmod(0o755)

    def trouble(self, name: str) -> Path:
        """Returns the file whose presence makes the stand-in fail in one way."""
        return self.calls_file.with_name(f"calls.{name}")

    def bootstrap(
        self, *arguments: str, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        self.calls_file.write_text("")
        return subprocess.run(
            [self.root / "scripts/bootstrap", *arguments],
            env={
                "PATH": str(self.path),
                "CALLS": str(self.calls_file),
                "NVIDIA_DRIVER": str(self.trouble("driver")),  # Not that of the machine that runs the tests.
                **variables,
            },
            cwd=cwd or self.root,
            capture_output=True,
            text=True,
        )

    def installed(self) -> list[str]:
        """Returns what pip was asked for in the last run: names of locks, `.` for the project."""
        return [
            line.split()[-1]
            for line in self.calls_file.read_text().splitlines()
            if line.startswith("-m pip") and " install " in line
        ]


@pytest.fixture
def skeleton(tmp_path) -> Skeleton:
    return Skeleton(tmp_path)


@pytest.fixture
def ready(skeleton) -> Skeleton:
    skeleton.add_python()
    result = skeleton.bootstrap()
    assert result.returncode == 0, result.stderr
    return skeleton


EVERYTHING = ["requirements-build.lock", "requirements.lock", "."]


def test_installs_what_builds_then_the_lock_then_the_project(skeleton):
    skeleton.add_python()
    result = skeleton.bootstrap()
    assert result.returncode == 0, result.stderr
    assert skeleton.installed() == EVERYTHING
    steps = [
        "makes .venv with python3: about a minute, 3 GB",
        "downloads package 10",
        "unpacks 11 packages",
        "compiles the packages",
        "installs shardstream from this folder",
    ]
    progress = "".join(f"bootstrap: {step}\n" for step in steps)
    after = "bootstrap: done; next: `. .venv/bin/activate`, then `shardstream-ingest build --help`, or `scripts/demo`"
    assert result.stderr == f"{progress}{after} for an example\n"
    assert result.stdout == ""


def test_called_by_another_script_it_says_not_what_to_do_next(skeleton):
    skeleton.add_python()
    result = skeleton.bootstrap(BOOTSTRAP_CALLER="demo")
    assert result.returncode == 0, result.stderr
    assert "installs shardstream" in result.stderr
    assert "next" not in result.stderr


def test_everything_from_a_lock_is_checked_by_hash(ready):
    ready.bootstrap("dev")
    calls = [line for line in ready.calls_file.read_text().splitlines() if ".lock" in line]
    assert calls
    assert all("--require-hashes" in call for call in calls)


def test_does_nothing_when_nothing_changed(ready, tmp_path):
    result = ready.bootstrap(cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert ready.installed() == []


@pytest.mark.parametrize(
    ("changed", "installed"),
    [
        ("pyproject.toml", ["."]),
        ("requirements.lock", EVERYTHING),
        ("requirements-build.lock", EVERYTHING),
        ("requirements-dev.lock", []),
    ],
)
def test_renews_what_a_change_concerns(ready, changed, installed):
    with (ready.root / changed).open("a") as file:
        file.write("# changed\n")
    assert ready.bootstrap().returncode == 0
    assert ready.installed() == installed
    assert ready.bootstrap().returncode == 0
    assert ready.installed() == []


def test_dev_adds_the_tools_once(ready):
    assert ready.bootstrap("dev").returncode == 0
    assert ready.installed() == ["requirements-dev.lock"]
    assert ready.bootstrap("dev").returncode == 0
    assert ready.installed() == []


def test_a_moved_repository_gets_a_new_environment(ready):
    # The programs in .venv/bin name their Python by its full path.
    ready.root = ready.root.rename(ready.root.with_name("elsewhere"))
    assert ready.bootstrap().returncode == 0
    assert ready.installed() == EVERYTHING


def test_a_python_that_is_gone_gets_a_new_environment(ready):
    (ready.root / ".venv/bin/python").unlink()
    assert ready.bootstrap().returncode == 0
    assert ready.installed() == EVERYTHING


def test_what_was_interrupted_is_made_anew(ready):
    # A pip that stopped halfway may leave packages that look whole.
    (ready.root / ".venv/half-written").touch()
    ready.trouble("offline").touch()
    assert ready.bootstrap("dev").returncode == 1
    ready.trouble("offline").unlink()
    assert ready.bootstrap("dev").returncode == 0
    assert ready.installed() == [*EVERYTHING, "requirements-dev.lock"]
    assert not (ready.root / ".venv/half-written").exists()


def test_a_failure_shows_what_pip_said_and_where_the_log_is(ready):
    ready.trouble("offline").touch()
    result = ready.bootstrap("dev")
    assert "no route to the registry" in result.stderr
    assert "bootstrap: this failed: pip install -r requirements-dev.lock" in result.stderr
    assert str(ready.root / ".venv/bootstrap/log") in result.stderr


def test_without_libgl_takes_opencv_without_windows(skeleton):
    skeleton.add_python()
    skeleton.trouble("no-libgl").touch()
    result = skeleton.bootstrap()
    assert result.returncode == 0, result.stderr
    assert "so --show will not work" in result.stderr
    calls = skeleton.calls_file.read_text()
    # Both wheels own cv2/: the first has to go before the second comes.
    assert calls.index("uninstall --yes opencv-python") < calls.index("requirements-headless.lock")
    assert skeleton.bootstrap().stderr == ""


@pytest.mark.parametrize("version", ["python3.11", "python3.12", "python3.13", "python"])
def test_takes_whichever_python_fits(skeleton, version):
    skeleton.add_python(version)
    assert f"makes .venv with {version}:" in skeleton.bootstrap().stderr


def test_python_can_be_named(skeleton):
    skeleton.add_python()
    skeleton.add_python("my-python")
    result = subprocess.run(
        [skeleton.root / "scripts/bootstrap"],
        env={
            "PATH": str(skeleton.path),
            "CALLS": os.devnull,
            "NVIDIA_DRIVER": str(skeleton.trouble("driver")),
            "PYTHON": str(skeleton.path / "my-python"),
        },
        capture_output=True,
        text=True,
    )
    assert f"makes .venv with {skeleton.path / 'my-python'}:" in result.stderr


@pytest.mark.parametrize("there_is_an_old_one", [False, True])
def test_says_which_python_it_wants(skeleton, there_is_an_old_one):
    if there_is_an_old_one:
        skeleton.add_python()
        skeleton.trouble("too-old").touch()
    result = skeleton.bootstrap()
    assert result.returncode == 1
    assert result.stderr == (
        "bootstrap: found no Python 3.11, 3.12 or 3.13 with pip: install one"
        " (Debian: apt-get install python3 python3-pip) or name it: PYTHON=/path/to/python3.12 scripts/bootstrap\n"
    )
    assert not (skeleton.root / ".venv").exists()


def test_an_environment_of_somebody_else_is_left_alone(skeleton):
    skeleton.add_python()
    (skeleton.root / ".venv").mkdir()
    (skeleton.root / ".venv/mine").touch()
    result = skeleton.bootstrap()
    assert result.returncode == 1
    assert "was not made by this script: move it away, then run this again" in result.stderr
    assert (skeleton.root / ".venv/mine").exists()
    assert skeleton.installed() == []


def test_an_unknown_argument_is_told(skeleton):
    result = skeleton.bootstrap("developer")
    assert result.returncode == 1
    assert result.stderr == (
        "bootstrap: takes nothing, or some of 'gpu' or 'cpu', 'dev' and '--system', found 'developer'\n"
    )


WITH_CUDA = ["requirements-build.lock", "requirements.lock", "requirements-gpu.lock", "."]
NVIDIA_SMI = '#!/bin/sh\n[ "$*" = -L ] && [ ! -e "$CALLS.no-gpu" ]\n'


def test_a_driver_that_answers_adds_the_libraries_of_cuda(skeleton):
    skeleton.add_python()
    skeleton.add("nvidia-smi", NVIDIA_SMI)
    result = skeleton.bootstrap("dev")
    assert result.returncode == 0, result.stderr
    assert skeleton.installed() == [*WITH_CUDA, "requirements-dev.lock"]
    assert "bootstrap: adds the libraries of CUDA for TensorFlow" in result.stderr
    assert skeleton.bootstrap("dev").stderr == ""
    assert skeleton.installed() == []


def test_a_program_without_a_gpu_behind_it_adds_nothing(skeleton):
    skeleton.add_python()
    skeleton.add("nvidia-smi", NVIDIA_SMI)
    skeleton.trouble("no-gpu").touch()
    skeleton.bootstrap()
    assert skeleton.installed() == EVERYTHING


def test_the_file_of_a_driver_is_enough(skeleton):
    skeleton.add_python()
    skeleton.trouble("driver").touch()
    skeleton.bootstrap()
    assert skeleton.installed() == WITH_CUDA


def test_gpu_adds_them_without_a_driver_then_and_later(ready):
    assert ready.bootstrap("gpu").returncode == 0
    assert ready.installed() == ["requirements-gpu.lock"]
    with (ready.root / "requirements.lock").open("a") as file:
        file.write("# changed\n")
    assert ready.bootstrap().returncode == 0
    assert ready.installed() == WITH_CUDA


def test_cpu_leaves_them_out_in_spite_of_a_driver_then_and_later(ready):
    ready.add("nvidia-smi", NVIDIA_SMI)
    assert ready.bootstrap("cpu").returncode == 0
    assert ready.installed() == []
    assert ready.bootstrap("dev").returncode == 0
    assert ready.installed() == ["requirements-dev.lock"]
    assert ready.bootstrap("gpu").returncode == 0
    assert ready.installed() == ["requirements-gpu.lock"]
    assert ready.bootstrap("cpu").returncode == 0
    assert ready.installed() == EVERYTHING


def test_a_kill_amid_cuda_is_made_anew(ready):
    ready.trouble("no-cuda").touch()
    assert ready.bootstrap("gpu").returncode == 1
    ready.trouble("no-cuda").unlink()
    assert ready.bootstrap("gpu").returncode == 0
    assert ready.installed() == WITH_CUDA


FAKE_APT = """#!/bin/sh
echo "apt-get $*" >>"$CALLS"
case $* in
  --simulate*) [ -e "$CALLS.installed" ] || echo "Inst chromium (1)" ;;
  update) [ ! -e "$CALLS.no-mirror" ] || { echo "Could not resolve the mirror"; exit 100; } ;;
  install*) touch "$CALLS.installed" ;;
esac
"""
SKIPPED = "tests that need them are skipped: chromium xvfb xdotool fonts-noto-cjk util-linux"


@pytest.fixture(name="debian")
def _debian(skeleton) -> Skeleton:
    """Where one is root and apt-get is there."""
    skeleton.add_python()
    skeleton.add("apt-get", FAKE_APT)
    skeleton.add("id", "#!/bin/sh\necho 0\n")
    return skeleton


def test_system_installs_the_programs_of_the_tests_once(debian):
    result = debian.bootstrap("dev", "--system")
    assert result.returncode == 0, result.stderr
    calls = debian.calls_file.read_text()
    (install,) = [line for line in calls.splitlines() if line.startswith("apt-get install --yes")]
    assert {"chromium", "xvfb", "xdotool", "fonts-noto-cjk", "libgl1"} <= set(install.split())
    # OpenCV with windows loads only once they are there.
    assert calls.index(install) < calls.index("requirements.lock")
    assert debian.installed() == [*EVERYTHING, "requirements-dev.lock"]
    result = debian.bootstrap("dev", "--system")
    assert (result.returncode, result.stderr) == (0, "")
    assert "apt-get install" not in debian.calls_file.read_text()


def test_without_system_nothing_is_installed_for_the_tests(debian):
    assert debian.bootstrap("dev").returncode == 0
    assert "apt-get" not in debian.calls_file.read_text()


def test_system_goes_through_sudo(debian):
    debian.add("id", "#!/bin/sh\necho 1000\n")
    debian.add("sudo", '#!/bin/sh\necho "sudo $*" >>"$CALLS"\nshift\nexec "$@"\n')
    assert debian.bootstrap("dev", "--system").returncode == 0
    calls = debian.calls_file.read_text()
    assert "sudo -n env DEBIAN_FRONTEND=noninteractive" in calls
    assert "apt-get install --yes" in calls


def test_opencv_without_windows_is_replaced_once_its_libraries_are_there(debian):
    debian.bootstrap("dev")
    (debian.root / ".venv/lib/python3.11/site-packages/opencv_python_headless-5.0.dist-info").mkdir(
        parents=True
    )
    assert debian.bootstrap("dev", "--system").returncode == 0
    assert debian.installed() == [*EVERYTHING, "requirements-dev.lock"]


@pytest.mark.parametrize(
    ("removed", "trouble", "sentence"),
    [
        ("apt-get", "", f"there is no apt-get here to install the programs of the tests; {SKIPPED}"),
        ("id", "", f"--system wants root or a sudo without a password; {SKIPPED}"),
        ("", "no-mirror", f"apt-get failed, its last lines are above; {SKIPPED}"),
    ],
)
def test_system_says_why_it_installs_nothing_and_goes_on(debian, removed, trouble, sentence):
    if removed == "apt-get":
        (debian.path / "apt-get").unlink()
    if removed == "id":
        debian.add("id", "#!/bin/sh\necho 1000\n")
    if trouble:
        debian.trouble(trouble).touch()
    result = debian.bootstrap("dev", "--system")
    assert result.returncode == 0, result.stderr
    assert f"bootstrap: {sentence}\n" in result.stderr
    assert debian.installed() == [*EVERYTHING, "requirements-dev.lock"]
