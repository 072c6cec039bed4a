"""Entry point of shardstream-train. The command is in cli.py, whose imports take a while."""

import sys
from collections.abc import Sequence

from shardstream.ingest.common.startup import exit_on_ctrl_c


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command in `argv` and returns its exit code."""
    with exit_on_ctrl_c():
        from shardstream.train.cli import run_command
    return run_command(argv)


if __name__ == "__main__":
    sys.exit(main())
