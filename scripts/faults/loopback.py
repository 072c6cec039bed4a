"""Runs programs side by side in a network namespace with only the loopback device.

TensorFlow's servers listen on all interfaces and accept any client, so they must not run on a reachable machine.
`unshare` creates the network, as root or, if the kernel allows user namespaces, as any user.
"""

import contextlib
import fcntl
import json
import select
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast

UNSHARE = ("unshare", "--map-root-user", "--net")
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def reason_it_cannot() -> str | None:
    """Returns why such a network is not possible here, or None if it is."""
    if not shutil.which("unshare"):
        return "no program unshare"
    tried = subprocess.run([*UNSHARE, "true"], check=False, capture_output=True, text=True)
    return None if tried.returncode == 0 else f"unshare is refused here: {tried.stderr.strip()}"


class Group:
    """Programs that were started together.

    Attributes:
        pids: Process ids, in order.
    """

    def __init__(self, launcher: subprocess.Popen[str], answers: IO[str], logs: Sequence[Path]) -> None:
        """Takes the process that starts them, and its output."""
        self._launcher = launcher
        self._answers = answers
        self._logs = logs
        self.pids: list[int] = json.loads(answers.readline())

    def is_running(self) -> bool:
        """Returns whether any of them is running."""
        return self._launcher.poll() is None

    def wait(self) -> list[int]:
        """Waits for all of them, and returns their exit codes, negative for a signal."""
        return json.loads(self._answers.readline())

    def logs(self) -> list[str]:
        """Returns the stdout and stderr of each."""
        return [log.read_text(encoding="utf-8", errors="replace") for log in self._logs]


@contextlib.contextmanager
def side_by_side(commands: Sequence[Sequence[str]], folder: Path) -> Iterator[Group]:
    """Starts all `commands`, with output to files in `folder`, and kills those still running at exit."""
    folder.mkdir(parents=True, exist_ok=True)
    logs = [folder / f"{number}.log" for number in range(len(commands))]
    call = json.dumps([[list(command), str(log)] for command, log in zip(commands, logs, strict=True)])
    argv = [*UNSHARE, sys.executable, str(Path(__file__).absolute()), call]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as launcher:
        try:
            yield Group(launcher, cast(IO[str], launcher.stdout), logs)
        finally:
            launcher.communicate()  # Closing its stdin ends all programs it started.


def main(calls: Sequence[tuple[Sequence[str], str]]) -> None:
    """Brings the loopback device up and runs programs until they exit or stdin is closed."""
    bring_up("lo")
    processes = []
    for command, log in calls:
        with Path(log).open("wb") as file:
            processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file))
    print(json.dumps([process.pid for process in processes]), flush=True)
    while any(process.poll() is None for process in processes):
        if select.select([sys.stdin], [], [], 0.02)[0]:  # Closed.
            for process in processes:
                process.kill()
    print(json.dumps([process.returncode for process in processes]), flush=True)


def bring_up(name: str) -> None:
    """Brings a network device up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = bytearray(struct.pack("16sh22x", name.encode(), 0))
        fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("h", request, 16)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", name.encode(), flags | _IFF_UP))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
