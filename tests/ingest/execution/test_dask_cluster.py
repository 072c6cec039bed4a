"""Dask distributed as the engine: real schedulers and workers, processes of their own on the loopback device."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from shardstream.ingest.common.errors import ConfigError, MachineError
from shardstream.ingest.execution.base import Engine
from shardstream.ingest.execution.factory import open_engine

Found = TypeVar("Found")
PID = "__import__('os').getpid()"


class Cluster:
    """A scheduler and its workers, each a process as `dask` starts them."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        note = folder / "scheduler.json"
        self.scheduler = self.start(
            "scheduler", "--port", "0", "--dashboard-address", ":0", "--scheduler-file", note, **environment
        )
        self.address = wait_for(lambda: json.loads(note.read_text())["address"])

    def add_worker(self, *options: str, threads: int = 1, **environment: str) -> None:
        threads_option = ("--nthreads", str(threads))
        folder = ("--local-directory", self.folder)
        self.start("worker", self.address, *threads_option, *folder, *options, **environment)

    def start(self, *arguments: object, **environment: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "dask",
            *map(str, arguments),
            "--host",
            "127.0.0.1",
            "--no-dashboard",
        ]
        with (self.folder / "log").open("ab") as log:
            # In a folder of their own: a path that is relative to the caller's must not reach them.
            process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, env=os.environ | environment
            )
        self.processes.append(process)
        return process

    def end(self) -> None:
        for process in reversed(self.processes):
            process.kill()  # A worker ends with the process that started it.
            process.wait()


def wait_for(find: Callable[[], Found | None]) -> Found:
    """Returns what `find` returns once that is something, and was found without an error."""
    deadline = time.monotonic() + 60  # So long that it says "never".
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            if (found := find()) is not None:
                return found
        time.sleep(0.01)
    raise AssertionError("never came")


@contextlib.contextmanager
def running_cluster(folder: Path, **environment: str) -> Iterator[Cluster]:
    cluster = Cluster(folder, **environment)
    try:
        yield cluster
    finally:
        cluster.end()


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that has no workers yet, for tests that break it."""
    (tmp_path / "cluster").mkdir()
    with running_cluster(tmp_path / "cluster") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers; those that a test kills are started again by Dask."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.add_worker()
        cluster.add_worker()
        yield cluster


@pytest.fixture
def engine(cluster: Cluster) -> Iterator[Engine]:
    with open_engine("dask", workers=1, scheduler=cluster.address) as engine:
        yield engine


def never(task: object) -> object:
    raise AssertionError(f"{task} was lost")


def wait_for_pid(folder: Path) -> int:
    return int(wait_for(lambda: next(folder.glob("*.pid"), None)).stem)


def test_every_file_is_read_once_and_by_both_workers(engine, tmp_path):
    for number in range(100):
        (tmp_path / f"{number}.txt").write_text(str(number))
    results = engine.run_all(Path.read_text, tmp_path.glob("*.txt"), alone=never)
    assert sorted(map(int, results)) == list(range(100))
    assert len(set(engine.run_all(eval, [f"(__import__('time').sleep(0.05), {PID})"] * 20, alone=never))) == 2


def test_what_the_workers_write_does_not_reach_the_terminal(engine, capfd):
    assert list(engine.run_all(eval, ["print('noise')"], alone=never)) == [None]
    assert capfd.readouterr() == ("", "")


def test_an_error_of_a_task_reaches_the_caller(cluster):
    with (
        pytest.raises(ZeroDivisionError),
        open_engine("dask", workers=1, scheduler=cluster.address) as engine,
    ):
        list(engine.run_all(eval, ["1", "1 / 0"], alone=never))


# On its first try it notes its process and waits for the end, on its second it finds the note.
FIRST_TRY = (
    "(note.with_name(str(__import__('os').getpid()) + '.pid').touch(), note.touch(), "
    "__import__('threading').Event().wait()) if not note.exists() else {result!r}"
)


def first_try_waits(folder: Path, result: str) -> str:
    return f"(lambda note: {FIRST_TRY.format(result=result)})(__import__('pathlib').Path({str(folder / 'note')!r}))"


def test_a_worker_killed_in_the_middle_costs_nothing(engine, tmp_path):
    def tasks():
        yield first_try_waits(tmp_path, "tried again")
        for number in range(30):
            yield str(number)
            if number == 10:  # Taken while others are under way: the loop is in the middle.
                os.kill(wait_for_pid(tmp_path), signal.SIGKILL)

    results = list(engine.run_all(eval, tasks(), alone=never))
    assert sorted(map(str, results)) == sorted(["tried again", *map(str, range(30))])


def test_a_task_that_kills_every_worker_is_done_alone(engine):
    deadly = f"__import__('os').kill({PID}, 9)"
    tasks = [deadly, *map(str, range(10))]
    alone = []

    def do_alone(task):
        alone.append(task)
        return "dead" if task == deadly else eval(task)

    results = list(engine.run_all(eval, tasks, alone=do_alone))
    assert sorted(map(str, results)) == sorted(["dead", *map(str, range(10))])
    assert deadly in alone


def test_an_alarm_ends_a_worker_that_hangs_and_the_next_one_does_its_work(engine, tmp_path):
    hang = first_try_waits(tmp_path, "tried again").replace("__import__('threading')", "ALARM")
    hang = hang.replace("ALARM", "(__import__('signal').alarm(1), __import__('threading'))[1]")
    assert list(engine.run_all(eval, [hang], alone=never)) == ["tried again"]


@pytest.mark.slow
def test_workers_that_come_later_get_work_and_more_is_in_flight(scheduler):
    scheduler.add_worker()
    processes, most_in_flight, taken = set(), 0, 0

    def tasks():
        nonlocal taken
        while taken < 1000 and (len(processes) < 3 or most_in_flight < 2 * 3):
            taken += 1
            yield f"(__import__('time').sleep(0.02), {PID})[1]"

    with open_engine("dask", workers=1, scheduler=scheduler.address) as engine:
        for done, process in enumerate(engine.run_all(eval, tasks(), alone=never)):
            if done == 0:
                assert taken == 2
                scheduler.add_worker("--nworkers", "2")
            processes.add(process)
            most_in_flight = max(most_in_flight, taken - done)
    assert len(processes) == 3
    assert most_in_flight == 2 * 3


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_lost_scheduler_is_one_sentence(scheduler, tmp_path, how):
    scheduler.add_worker()
    with (
        pytest.raises(MachineError, match=r"scheduler was lost; finished work is kept.*run the same command"),
        open_engine("dask", workers=1, scheduler=scheduler.address) as engine,
    ):
        tasks = iter(["0", first_try_waits(tmp_path, "1")])
        results = engine.run_all(eval, tasks, alone=never)
        assert next(results) == 0
        wait_for_pid(tmp_path)
        scheduler.scheduler.send_signal(how)
        next(results)


def test_a_cluster_that_loses_all_workers_can_give_up_in_one_sentence(tmp_path):
    environment = {"DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT": "1s"}
    with running_cluster(tmp_path, **environment) as cluster:
        cluster.add_worker()
        with (
            pytest.raises(
                MachineError,
                match=r"Dask gave up: .* without any running workers.*run the same command again",
            ),
            open_engine("dask", workers=1, scheduler=cluster.address) as engine,
        ):
            results = engine.run_all(eval, [first_try_waits(tmp_path, "0")], alone=never)
            cluster.processes[-1].kill()
            next(results)


@pytest.mark.slow  # Dask gives a busy worker 4 s to end, twice.
def test_a_cluster_that_somebody_else_restarts_is_one_sentence(cluster, tmp_path):
    with (
        pytest.raises(MachineError, match="run the same command again"),
        open_engine("dask", workers=1, scheduler=cluster.address) as engine,
    ):
        tasks = iter(["0", first_try_waits(tmp_path, "1")])
        results = engine.run_all(eval, tasks, alone=never)
        assert next(results) == 0
        wait_for_pid(tmp_path)
        import distributed

        with distributed.Client(cluster.address, set_as_default=False) as somebody:
            somebody.restart()
        next(results)


def talk_of_other_things(server: socket.socket) -> None:
    peer, _ = server.accept()
    with peer:
        peer.sendall(b"SSH-2.0-OpenSSH_9.2" * 10)


@pytest.mark.parametrize(
    "answers", ["nobody", "somebody who says nothing", "somebody who talks of other things"]
)
def test_an_address_without_a_scheduler(answers, monkeypatch):
    monkeypatch.setattr("shardstream.ingest.execution.dask_cluster._CONNECT_SECS", 2)  # Of 10.
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as stack:
        port = server.getsockname()[1]
        if answers == "nobody":
            server.close()
        elif answers == "somebody who talks of other things":
            thread = stack.enter_context(ThreadPoolExecutor(1))
            thread.submit(talk_of_other_things, server)
        stack.enter_context(
            pytest.raises(ConfigError, match=f"tcp://127.0.0.1:{port}: no Dask scheduler answers")
        )
        stack.enter_context(open_engine("dask", workers=1, scheduler=f"tcp://127.0.0.1:{port}"))


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("host", "missing port number"),
        ("carrier-pigeon://host:8786", "unknown address scheme 'carrier-pigeon'"),
        ("tcp://host:port", "invalid literal"),
        ("tls://127.0.0.1:8786", "check your TLS configuration"),
    ],
)
def test_an_address_that_cannot_be_used(address, why):
    with (
        pytest.raises(
            ConfigError, match=f"--scheduler has to be like tcp://host:8786.*got {address}: .*{why}"
        ),
        open_engine("dask", workers=1, scheduler=address),
    ):
        pass


def refused(cluster: Cluster, *folders: Path) -> str:
    with (
        pytest.raises(ConfigError) as error,
        open_engine("dask", workers=1, scheduler=cluster.address, folders=folders),
    ):
        pass
    return str(error.value)


def test_a_worker_of_several_threads_is_refused(scheduler):
    scheduler.add_worker(threads=2)
    assert "has 2 threads, expected one: start workers with" in refused(scheduler)


@pytest.mark.parametrize(
    ("package", "said"),
    [
        ("shardstream", "has shardstream 0.0.1, expected "),
        ("pillow", "would not write the same bytes: it has pillow 0.0.1, expected "),
    ],
)
def test_a_worker_of_other_versions_is_refused(scheduler, tmp_path, package, said):
    metadata = tmp_path / f"{package}-0.0.1.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.0.1\n")
    scheduler.add_worker(PYTHONPATH=str(tmp_path))
    assert said in refused(scheduler)


def test_a_worker_on_another_file_system_is_refused(cluster, tmp_path, monkeypatch):
    for name in ("food", "interior", "exterior"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    here = Path("/proc/self/cwd")  # A path that leads each process elsewhere.
    assert "sees 0 of 3 names in /proc/self/cwd: all workers need the same file system" in refused(
        cluster, here
    )
    with open_engine("dask", workers=1, scheduler=cluster.address, folders=[tmp_path]):
        pass


@pytest.mark.slow
def test_a_worker_that_comes_later_is_checked_as_well(scheduler):
    scheduler.add_worker()
    with (
        pytest.raises(ConfigError, match="has 2 threads"),
        open_engine("dask", workers=1, scheduler=scheduler.address) as engine,
    ):
        tasks = ["__import__('time').sleep(0.05)"] * 1000
        for number, _ in enumerate(engine.run_all(eval, tasks, alone=never)):
            if number == 0:
                scheduler.add_worker(threads=2)


def test_a_cluster_without_workers_is_one_sentence(scheduler, monkeypatch):
    monkeypatch.setattr("shardstream.ingest.execution.dask_cluster._FIRST_WORKER_SECS", 1)
    assert "has no workers; start some with `dask worker" in refused(scheduler)


def test_dask_that_is_not_installed_is_one_sentence(tmp_path):
    (tmp_path / "distributed.py").write_text("raise ModuleNotFoundError(name='distributed')")
    program = "from shardstream.ingest.execution.factory import open_engine\nwith open_engine('dask', workers=1): pass"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.stderr.splitlines()[-1].endswith(
        "--engine dask needs distributed, which is not installed: pip install distributed"
    )


@pytest.mark.slow
def test_a_local_cluster_outlives_its_workers(capfd):
    deadly = f"__import__('os').kill({PID}, 9)"
    with open_engine("dask", workers=2) as engine:
        results = list(engine.run_all(eval, [deadly, *map(str, range(10))], alone=str))
    assert sorted(map(str, results)) == sorted([deadly, *map(str, range(10))])
    assert capfd.readouterr() == ("", "")


class Build:
    """`shardstream-ingest build` on a cluster, as a process of its own."""

    def __init__(self, folder: Path, *, engine: str, address: str = "") -> None:
        self.folder = folder
        self.data = folder / "data"
        folder.mkdir(exist_ok=True)
        where = ("--engine", engine, *(("--scheduler", address) if address else ()))
        # Many small shards, so that there is a reduce step to be in the middle of; relative paths, as people type.
        options = ("--image-size", "96", "--shard-size", "32KiB", "--workers", "2", *where)
        command = [
            sys.executable,
            "-m",
            "shardstream.ingest",
            "build",
            str(folder.parent / "photos"),
            str(self.data),
            *options,
        ]
        self.process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def finish(self) -> tuple[int, str]:
        """Returns the exit code and what was said on stderr."""
        _, said = self.process.communicate()
        return self.process.returncode, said

    def wait_for_unit(self) -> Path:
        """Returns the first of the units that are judged, when there is one."""
        units = self.folder / "data.incomplete/units"
        return wait_for(lambda: next(units.rglob("*.verdicts"), None))

    def kill_writer(self, step: str) -> None:
        """Kills a process of the cluster while it writes a file in the folder of `step`."""
        where = self.folder / "data.incomplete" / step
        while self.process.poll() is None:
            for pid in writers(where) - {self.process.pid}:
                os.kill(pid, signal.SIGSTOP)  # It may be done by now: whoever has stopped cannot go on.
                caught = pid in writers(where)
                os.kill(pid, signal.SIGKILL if caught else signal.SIGCONT)
                if caught:
                    wait_for(lambda dead=pid: dead not in writers(where) or None)
                    return
        raise AssertionError(f"nobody was seen writing in {where}: {self.finish()}")


def writers(where: Path) -> set[int]:
    """Returns the processes that have a file open which is being written under `where`."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # Processes come and go, and so do the files that they have open.
            opened = [path.readlink() for path in (process / "fd").iterdir()]
            if any(path.suffix == ".part" and path.is_relative_to(where) for path in opened):
                found.add(int(process.name))
    return found


def contents(data: Path) -> dict[str, bytes]:
    return {str(path.relative_to(data)): path.read_bytes() for path in data.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory, make_photos) -> Path:
    """A folder for jobs, with photos beside them."""
    folder = tmp_path_factory.mktemp("jobs")
    make_photos(folder / "photos", num_photos=400)
    return folder


@pytest.fixture(scope="module")
def expected(jobs: Path) -> dict[str, bytes]:
    """What the local engine makes of the photos."""
    build = Build(jobs / "local", engine="local")
    assert build.finish() == (0, "")
    return contents(build.data)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["units", "shards"])
def test_a_worker_killed_in_the_map_or_in_the_reduce_changes_no_byte(cluster, jobs, expected, step):
    build = Build(jobs / f"killed in {step}", engine="dask", address=cluster.address)
    build.kill_writer(step)
    assert build.finish() == (0, "")
    assert contents(build.data) == expected


@pytest.mark.slow
@pytest.mark.parametrize("round_number", range(5))
def test_workers_killed_again_and_again_change_no_byte(cluster, jobs, expected, round_number):
    build = Build(jobs / f"round {round_number}", engine="dask", address=cluster.address)
    for step in ("units", "units", "shards", "shards", "shards"):
        build.kill_writer(step)
    assert build.finish() == (0, "")
    assert contents(build.data) == expected


def test_a_local_cluster_makes_the_same_bytes(jobs, expected):
    build = Build(jobs / "local cluster", engine="dask")
    assert build.finish() == (0, "")
    assert contents(build.data) == expected


@pytest.mark.slow
def test_a_client_killed_in_the_middle_goes_on(cluster, jobs, expected):
    build = Build(jobs / "client", engine="dask", address=cluster.address)
    unit = build.wait_for_unit()
    build.process.kill()
    assert build.finish() == (-signal.SIGKILL, "")
    judged = unit.stat()
    build = Build(jobs / "client", engine="dask", address=cluster.address)
    link = jobs / "unit"
    link.hardlink_to(unit)
    assert build.finish() == (0, "")
    assert (link.stat().st_ino, link.stat().st_mtime_ns) == (judged.st_ino, judged.st_mtime_ns)
    assert contents(build.data) == expected


@pytest.mark.slow
def test_a_scheduler_killed_in_the_middle_is_one_sentence_and_the_job_goes_on(scheduler, jobs, expected):
    scheduler.add_worker()
    build = Build(jobs / "scheduler", engine="dask", address=scheduler.address)
    build.wait_for_unit()
    scheduler.scheduler.kill()
    code, said = build.finish()
    assert code == 1
    lost = f"{scheduler.address}: the connection to the Dask scheduler was lost; finished work is kept"
    assert said == f"shardstream-ingest: {lost}: once the cluster is back, run the same command again\n"
    scheduler.end()
    (jobs / "next scheduler").mkdir()
    with running_cluster(jobs / "next scheduler") as following:
        following.add_worker()
        build = Build(jobs / "scheduler", engine="dask", address=following.address)
        assert build.finish() == (0, "")
    assert contents(build.data) == expected
