"""What all tests begin with, and what is printed after them."""

import os
import signal
from collections import Counter
from collections.abc import Generator

import pytest

# What a shell without job control starts in the background is deaf to Ctrl-C, what nohup starts to SIGHUP, and so are
# their children: a program under test would wait for ever for the one that its test sends.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Rich reads these: what a test sees on a stand-in for a terminal must not depend on the terminal of who runs it.
for _name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(_name, None)
os.environ["TERM"] = "xterm"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None]:
    """Prints at the end how many tests were skipped for which reason."""
    yield
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(" ".join(str(report.longrepr[-1]).split()) for report in reports)
    if reasons:
        terminalreporter.section(f"{reasons.total()} skipped", "-")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:5d}  {reason.removeprefix('Skipped: ')}")
