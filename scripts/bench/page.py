"""Measures how fast a browser renders the page of a report: layout, filtering, and showing a matrix.

    python -m scripts.bench.page REPORT/index.html [--width 1440] [--repeats 5]

Opens the page in a headless Chromium and takes the median. Prints one JSON line.
"""

import base64
import dataclasses
import hashlib
import html
import json
import re
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

import tyro

# Everything at once and in this order: no part waits for the network or for a timer.
_MEASURE = """
const seen = {};
const laidOut = () => document.documentElement.getBoundingClientRect().height;
const timed = (name, action) => {
  const begin = performance.now();
  action();
  laidOut();
  seen[name] = performance.now() - begin;
};
laidOut();
seen.laid_out_ms = performance.now();
const form = document.getElementById("filter");
const matrix = document.getElementById("matrix-form");
const choose = (form, name, value) => {
  form.elements[name].value = value;
  form.elements[name].dispatchEvent(new Event("input", { bubbles: true }));
};
if (form) {
  timed("filter_ms", () => choose(form, "text", "a"));
  timed("sort_ms", () => choose(form, "sort", "path"));
}
if (matrix && matrix.elements.around)
  timed("matrix_ms", () => choose(matrix, "around", matrix.elements.around.options[1].value));
document.body.dataset.seen = JSON.stringify(seen);
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PageConfig:
    """Measures how long a browser takes for the page of a report."""

    page: tyro.conf.Positional[Path]
    """index.html of a report."""
    width: int = 1440
    """Of the window, in pixels."""
    repeats: int = 5
    """How often the page is opened."""


def main(config: PageConfig) -> None:
    """Opens the page and prints the medians."""
    text = config.page.read_text(encoding="utf-8")
    found = [measure(text, width=config.width) for _ in range(config.repeats)]
    medians = {name: round(statistics.median(one[name] for one in found), 1) for name in found[0]}
    facts = {
        "page_bytes": len(text.encode()),
        "images": text.count('src="data:image/'),
        "width": config.width,
    }
    print(json.dumps(facts | medians))


def measure(text: str, *, width: int) -> dict[str, float]:
    """Returns the times of a page in milliseconds.

    Raises:
        FileNotFoundError: There is no Chromium.
        RuntimeError: The page recorded nothing.
    """
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise FileNotFoundError("no Chromium is installed")
    # The page allows only its own scripts, by their hashes.
    allowed = base64.b64encode(hashlib.sha256(_MEASURE.encode()).digest()).decode()
    text = text.replace("script-src ", f"script-src 'sha256-{allowed}' ", 1)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(text.replace("</body>", f"<script>{_MEASURE}</script></body>"), encoding="utf-8")
        done = subprocess.run(
            [
                browser,
                *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
                f"--user-data-dir={folder}/profile",
                f"--window-size={width},1600",
                "--dump-dom",
                page.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    noted = re.search(r'data-seen="([^"]*)"', done.stdout)
    if noted is None:
        raise RuntimeError(f"the page noted nothing: {done.stderr[-500:]}")
    return json.loads(html.unescape(noted[1]))


if __name__ == "__main__":
    main(tyro.cli(PageConfig))
