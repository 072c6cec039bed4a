"""The page in a real browser: what a person can do with it, by mouse and by keyboard, at any width and in the dark."""

import base64
import dataclasses
import hashlib
import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from shardstream.predict.findings.duplicates import ManifestEntry
from shardstream.predict.findings.neighbors import Neighbor, Neighbors
from shardstream.predict.page.render import render_page

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")

SWITCHES = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--enable-logging=stderr",
    "--virtual-time-budget=4000",
    "--dump-dom",
]

# What every probe may use; the answers come back as JSON in an attribute of the body.
TOOLS = """
const seen = {};
const form = document.getElementById("filter");
const cards = () => [...document.querySelectorAll("#cards > li")].filter((card) => !card.hidden);
const paths = () => cards().map((card) => card.dataset.path).join(" ");
const set = (name, value, kind = "input") => {
  const found = form.elements[name];
  const isRadio = found instanceof RadioNodeList;
  const element = isRadio ? [...found].find((radio) => radio.value === value) : found;
  if (isRadio) element.checked = true;
  else element.value = value;
  element.dispatchEvent(new Event(kind, { bubbles: true }));
};
const press = (key, target = document.activeElement) =>
  target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
"""


@pytest.fixture(name="probe")
def _probe(tmp_path):
    """Opens a page, runs JavaScript in it and returns what it noted in `seen`; no word may be on the console."""

    def probe(text, script, *, width=1440, dark=False):
        code = f"{TOOLS}(async () => {{{script}\ndocument.body.dataset.seen = JSON.stringify(seen);}})();"
        allowed = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        text = text.replace("script-src ", f"script-src 'sha256-{allowed}' ", 1)
        page = tmp_path / "page.html"
        page.write_text(text.replace("</body>", f"<script>{code}</script></body>"), encoding="utf-8")
        done = subprocess.run(
            [
                str(BROWSER),
                *SWITCHES,
                f"--user-data-dir={tmp_path / 'profile'}",
                f"--window-size={width},1600",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                page.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
        found = re.search(r'data-seen="([^"]*)"', done.stdout)
        assert found, done.stdout[-2000:]
        return json.loads(html.unescape(found[1]))

    return probe


PICTURES = [
    ("food/a.jpg", 0, [0.90, 0.08, 0.02]),
    ("food/b.jpg", 0, [0.20, 0.70, 0.10]),
    ("food/old/c.jpg", 0, [0.55, 0.25, 0.20]),
    ("interior/d.jpg", 1, [0.10, 0.80, 0.10]),
    ("interior/e.jpg", 1, [0.05, 0.95, 0.00]),
    ("exterior/f.jpg", 2, [0.60, 0.30, 0.10]),
]
NAMES = {"class_names": ["food", "interior", "exterior"], "display_names": ["음식", "실내", "실외"]}


@pytest.fixture(scope="module")
def page(make_report):
    return render_page(make_report(PICTURES, **NAMES), "en")


def test_filters_and_sorting(page, probe):
    seen = probe(
        page,
        """
        seen.all = paths();
        set("verdict", "wrong"); seen.wrong = paths();
        set("actual", "0"); seen.wrongFood = paths();
        set("verdict", ""); set("predicted", "0"); seen.foodAsFood = paths();
        form.reset(); await wait(20);
        seen.reset = cards().length; seen.status = form.querySelector("output").textContent;
        set("from", "60"); set("to", "80"); seen.range = paths();
        set("from", "0"); set("to", "100"); set("text", "OLD"); seen.text = paths();
        set("text", "실내 interior/"); seen.words = paths();
        set("text", "no such"); seen.nothing = !document.getElementById("nothing").hidden;
        set("text", "");
        for (const order of ["loss", "sure", "unsure", "path", "given"]) {
          set("sort", order);
          seen[order] = paths();
        }
        """,
    )
    names = {letter: path for path, *_ in PICTURES for letter in [path.split("/")[-1][0]]}

    def of(letters):
        return " ".join(names[letter] for letter in letters)

    assert seen == {
        "all": of("fbcdae"),
        "wrong": of("fb"),
        "wrongFood": of("b"),
        "foodAsFood": of("ca"),
        "reset": 6,
        "status": "6 of 6 shown",
        "range": of("fbd"),
        "text": of("c"),
        "words": of("de"),
        "nothing": True,
        "loss": of("fbcdae"),
        "sure": of("eadbfc"),
        "unsure": of("cfbdae"),
        "path": of("fabcde"),
        "given": of("fbcdae"),
    }


def test_cells_and_rows_of_the_answer_filter_the_pictures(page, probe):
    seen = probe(
        page,
        """
        set("text", "old");
        document.querySelector(".matrix .miss[data-actual='0'][data-predicted='1']").click();
        seen.cell = paths(); seen.focus = document.activeElement.id; seen.text = form.elements.text.value;
        document.querySelector(".worst button").click();
        await wait(20); seen.worst = paths();
        const matrix = document.getElementById("matrix-form");
        const small = () => getComputedStyle(document.querySelector(".matrix small")).display;
        const bold = () => getComputedStyle(document.querySelector(".matrix b")).display;
        seen.both = [bold(), small()].includes("none");
        for (const value of ["counts", "shares"]) {
          [...matrix.elements.cells].find((radio) => radio.value === value).click();
          seen[value] = [bold() !== "none", small() !== "none"];
        }
        """,
    )
    assert seen == {
        "cell": "food/b.jpg",
        "focus": "gallery-title",
        "text": "",
        "worst": "exterior/f.jpg",
        "both": False,
        "counts": [True, False],
        "shares": [False, True],
    }


def test_the_keyboard_alone_is_enough(page, probe):
    seen = probe(
        page,
        """
        press("w", document.body); seen.wrong = paths();
        press("r", document.body); seen.right = cards().length;
        press("a", document.body); seen.all = cards().length;
        press("/", document.body); seen.search = document.activeElement.name;
        press("w"); seen.typing = cards().length;
        document.activeElement.blur();
        const at = () => document.activeElement.closest(".card").dataset.path;
        press("j", document.body); seen.first = at();
        press("j"); seen.second = at();
        press("k"); press("k"); seen.back = at();
        document.activeElement.click();
        const dialog = document.getElementById("large");
        const shown = () => dialog.querySelector(".source bdi").textContent;
        seen.open = [dialog.open, shown(), dialog.querySelector("output").textContent];
        press("ArrowRight", dialog); seen.next = shown();
        press("ArrowLeft", dialog); press("ArrowLeft", dialog); seen.previous = shown();
        press("w", dialog); seen.behind = cards().length;
        seen.bars = [...dialog.querySelectorAll(".bars li")].filter((bar) => bar.offsetHeight > 0).length;
        seen.record = dialog.querySelector(".record").offsetHeight > 0;
        press("ArrowRight", dialog);
        dialog.querySelector("[data-close]").click(); await wait(20);
        seen.closed = [dialog.open, at()];
        """,
    )
    assert seen == {
        "wrong": "exterior/f.jpg food/b.jpg",
        "right": 4,
        "all": 6,
        "search": "text",
        "typing": 6,
        "first": "exterior/f.jpg",
        "second": "food/b.jpg",
        "back": "exterior/f.jpg",
        "open": [True, "exterior/f.jpg", "1 / 6"],
        "next": "food/b.jpg",
        "previous": "exterior/f.jpg",
        "behind": 6,
        "bars": 3,
        "record": True,
        "closed": [False, "food/b.jpg"],
    }


def test_the_large_view_has_the_five_likeliest(make_report, probe):
    shares = [0.4, 0.2, 0.15, 0.1, 0.05, 0.04, 0.03, 0.03]
    text = render_page(make_report([("a.jpg", 0, shares)], class_names=list("abcdefgh")), "en")
    seen = probe(
        text,
        """
        const bars = (root) => [...root.querySelectorAll(".bars li")].filter((bar) => bar.offsetHeight > 0).length;
        seen.card = bars(document.querySelector(".card"));
        document.querySelector(".frame").click();
        seen.large = bars(document.getElementById("large"));
        """,
    )
    assert seen == {"card": 3, "large": 5}


def test_tables_sort_by_their_headers_and_say_so(page, probe):
    seen = probe(
        page,
        """
        const table = document.getElementById("classes-table");
        const order = () => [...table.tBodies[0].rows].map((row) => row.querySelector(".name").textContent).join(" ");
        const headers = [...table.tHead.rows[0].cells];
        const press = (i) => {
          headers[i].querySelector("button").click();
          return headers[i].getAttribute("aria-sort");
        };
        seen.recall = [press(2), order()];
        seen.again = [press(2), order()];
        seen.support = [press(4), order()];
        seen.one = headers.filter((header) => header.hasAttribute("aria-sort")).length;
        """,
    )
    assert seen == {
        "recall": ["descending", "실내 음식 실외"],
        "again": ["ascending", "실외 음식 실내"],
        "support": ["descending", "음식 실내 실외"],
        "one": 1,
    }


def test_findings_show_their_picture_and_open_it(make_report, probe):
    sure = [(f"w{i}.jpg", 0, [0.01, 0.98, 0.01]) for i in range(2)]
    usual = [(f"u{i}.jpg", i % 3, np.eye(3)[i % 3] * 0.4 + 0.2) for i in range(30)]
    seen = probe(
        render_page(make_report([*sure, *usual], **NAMES), "en"),
        """
        const finding = document.querySelector("#labels .finding");
        seen.same = finding.querySelector("img").src === document.querySelector("#picture-0 img").src;
        set("verdict", "right");
        finding.click();
        seen.open = document.querySelector("#large .source bdi").textContent;
        """,
    )
    assert seen == {"same": True, "open": "w0.jpg"}


def test_the_large_view_has_the_most_similar_training_images(make_report, probe):
    entries = [
        ManifestEntry(path=f"</script>/{i}.jpg", class_name="interior", split="train", position=i)
        for i in range(2)
    ]
    report = make_report(PICTURES, **NAMES)
    neighbors = Neighbors(
        of_row={
            5: [Neighbor(entries[0], 2, 0.912), Neighbor(entries[1], 1, 0.5)],
            1: [Neighbor(entries[1], 1, 0.3)],
        },
        thumbnails={entries[0]: report.pictures[0].picture},
    )
    seen = probe(
        render_page(dataclasses.replace(report, neighbors=neighbors), "en"),
        """
        const found = () => document.getElementById("neighbors").hidden ? null
          : [...document.querySelectorAll("#neighbors li")].map((item) => item.textContent);
        document.querySelector("#picture-5 .frame").click();
        seen.first = found();
        seen.pictures = document.querySelectorAll("#neighbors img").length;
        seen.wrong = document.querySelectorAll("#neighbors .is-wrong").length;
        press("ArrowRight", document.getElementById("large")); seen.second = found();
        press("ArrowRight", document.getElementById("large")); seen.third = found();
        """,
    )
    assert seen == {
        "first": ["실외 0.91</script>/0.jpg", "실내 0.50</script>/1.jpg"],
        "pictures": 1,
        "wrong": 1,
        "second": ["실내 0.30</script>/1.jpg"],
        "third": None,
    }


def test_class_names_are_not_set_letter_by_letter(make_report, probe):
    names = {
        "class_names": ["cardboard", "interior", "exterior"],
        "display_names": ["cardboard", "실내", "실외"],
    }
    seen = probe(
        render_page(make_report(PICTURES, **names), "en"),
        """
        document.body.style.width = "390px";
        const names = [...document.querySelectorAll("#classes-table tbody th .name")];
        seen.lines = names.map((name) => name.getClientRects().length);
        """,
        width=500,
    )
    assert seen == {"lines": [1, 1, 1]}


@pytest.mark.parametrize("width", [1440, 500])
def test_the_navigation_lands_on_its_headings(page, probe, width):
    seen = probe(
        page,
        """
        document.documentElement.style.scrollBehavior = "auto";
        document.body.style.paddingBottom = "3000px";  // So that the last one can be at the top as well.
        seen.tops = [];
        for (const link of document.querySelectorAll("nav a")) {
          // As following the link does; a navigation may keep Chromium from ever printing the page.
          document.querySelector(link.hash).scrollIntoView({ block: "start", behavior: "instant" });
          const heading = document.querySelector(link.hash).querySelector("h2");
          seen.tops.push(Math.round(heading.getBoundingClientRect().top));
        }
        """,
        width=width,
    )
    assert len(seen["tops"]) == 7
    assert all(0 <= top <= 40 for top in seen["tops"]), seen


def test_a_thousand_classes_can_be_used(make_report, probe):
    names = [f"class{i:04d}" for i in range(1000)]
    certain = np.full((1000, 1000), 1e-4) + 0.9 * np.eye(1000)
    pictures = [(f"{i % 1000}/{i}.jpg", i % 1000, certain[(i + (i % 3 == 0)) % 1000]) for i in range(3000)]
    seen = probe(
        render_page(make_report(pictures, class_names=names, gallery_size=60), "en"),
        """
        const matrix = document.getElementById("matrix-form");
        const table = document.getElementById("matrix-table");
        const heads = () => [...table.tHead.rows[0].cells].slice(1).map((cell) => cell.textContent.trim()).join(" ");
        const pick = (value) => {
          matrix.elements.around.value = value;
          matrix.elements.around.dispatchEvent(new Event("input", { bubbles: true }));
        };
        const before = heads();
        seen.most = before.split(" ").length;
        pick("500"); seen.around = heads();
        const cell = [...table.querySelectorAll(".miss")].map((button) => button.getAttribute("aria-label"));
        seen.cells = cell;
        table.querySelector(".miss").click(); await wait(20);
        seen.filter = [form.elements.actual.value, form.elements.predicted.value];
        pick(""); seen.back = heads() === before;
        const search = document.querySelector("input[data-rows='classes-table']");
        search.value = "class0777"; search.dispatchEvent(new Event("input"));
        const rows = [...document.getElementById("classes-table").tBodies[0].rows];
        seen.found = rows.filter((row) => !row.hidden).length;
        """,
    )
    assert seen == {
        "most": 20,
        "around": "class0500 class0499 class0501",
        "cells": [
            "1, 33.3\u00a0% of the row: class0500 predicted as class0501",
            "1, 33.3\u00a0% of the row: class0499 predicted as class0500",
        ],
        "filter": ["500", "501"],
        "back": True,
        "found": 1,
    }


@pytest.mark.parametrize("lang", ["en", "ko"])
@pytest.mark.parametrize("width", [1440, 768, 500])
def test_nothing_sticks_out_and_nothing_is_loaded(make_report, probe, width, lang):
    long = ["김치찌개" * 50, "a" * 200, "<b>&\"'"]
    pictures = [(f"{'x' * 200}/{path}", label, shares) for path, label, shares in PICTURES]
    seen = probe(
        render_page(make_report(pictures, class_names=long, name="n" * 120), lang),
        """
        for (const details of document.querySelectorAll("details")) details.open = true;
        await wait(50);
        seen.width = document.documentElement.scrollWidth - document.documentElement.clientWidth;
        document.querySelector(".frame").click();
        const dialog = document.getElementById("large");
        seen.dialog = dialog.scrollWidth - dialog.clientWidth;
        const loaded = performance.getEntriesByType("resource");
        seen.loaded = loaded.filter((one) => !one.name.startsWith("data:")).length;
        """,
        width=width,
    )
    assert seen == {"width": 0, "dialog": 0, "loaded": 0}


ACCESSIBLE = """
const name = (element) => (element.getAttribute("aria-label") || element.textContent || element.title).trim()
  || [...element.querySelectorAll("img")].map((image) => image.alt).join("");
const all = (selector) => [...document.querySelectorAll(selector)];
seen.nameless = all("button, a[href], summary, [role=group], nav, dialog, section").filter((element) =>
  !name(element) && !element.getAttribute("aria-labelledby")).length;
seen.unlabelled = all("input, select").filter((element) => !element.labels.length).length;
seen.withoutAlternative = all("img").filter((image) => !image.hasAttribute("alt")).length
  + all("svg").filter((svg) => svg.getAttribute("aria-hidden") !== "true" && !svg.getAttribute("aria-label")).length;
seen.headings = all("h1").length;
let level = 1;
seen.skipped = all("h1, h2, h3, h4").filter((heading) => {
  const skips = Number(heading.tagName[1]) > level + 1;
  level = Number(heading.tagName[1]);
  return skips;
}).length;
const ids = all("[id]").map((element) => element.id);
seen.doubled = ids.length - new Set(ids).size;
const is_lost = (id) => !document.getElementById(id);
seen.lost = all("[aria-labelledby]").filter((one) => is_lost(one.getAttribute("aria-labelledby"))).length
  + all("a[href^='#']").filter((link) => is_lost(link.hash.slice(1))).length;
seen.unscoped = all("table th").filter((header) => !header.scope).length;
seen.tabindex = all("[tabindex]").filter((element) => element.tabIndex > 0).length;
seen.unscrollable = all(".scroll, pre").filter((element) => element.tabIndex !== 0).length;

const parse = (color) => (color.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
const over = (top, under) => {
  const share = top.length > 3 ? top[3] : 1;
  return [0, 1, 2].map((i) => top[i] * share + under[i] * (1 - share));
};
const ground = (element) => {
  const layers = [];
  for (let one = element; one; one = one.parentElement) layers.unshift(parse(getComputedStyle(one).backgroundColor));
  return layers.reduce((under, top) => over(top, under), [255, 255, 255]);
};
const light = (color) => {
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = color.map((value) => linear(value / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
for (const details of all("details")) details.open = true;
const faint = new Set();
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  const is_text = walker.currentNode.textContent.trim() && !element.closest("script, svg, option, .skip");
  if (!is_text || !element.offsetHeight) continue;
  const under = ground(element);
  const style = getComputedStyle(element);
  let color = over(parse(style.color), under);
  const [a, b] = [light(color), light(under)];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  if (ratio < (large ? 3 : 4.5)) faint.add(`${element.tagName}.${element.className} ${ratio.toFixed(2)}`);
}
seen.faint = [...faint];
"""


@pytest.mark.parametrize("dark", [False, True])
def test_a_screen_reader_finds_names_and_every_text_has_contrast(make_report, probe, dark):
    rng = np.random.default_rng(0)
    # Cells of every shade.
    shares = rng.dirichlet(np.full(12, 0.25), 400)
    pictures = [
        (f"{i % 12}/{i}.jpg", i % 12, (shares[i] + 0.3 * np.eye(12)[i % 12]) / 1.3) for i in range(400)
    ]
    report = make_report(
        pictures,
        class_names=[f"c{i}" for i in range(12)],
        gallery_size=40,
        sharpness=rng.lognormal(3, 0.6, 400).astype(np.float32),
        brightness=rng.uniform(0, 255, 400).astype(np.float32),
    )
    seen = probe(render_page(report, "en"), ACCESSIBLE, dark=dark)
    assert seen.pop("headings") == 1
    assert seen.pop("faint") == []
    assert set(seen.values()) == {0}, seen


def test_the_tab_key_goes_through_the_page_in_the_order_in_which_it_is_read(page, probe):
    seen = probe(
        page,
        """
        const reachable = [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")]
          .filter((element) => element.offsetHeight > 0 || element.matches(".skip, input[type=radio]"));
        const order = ["skip", "nav", "answer", "filter", "cards", "keys", "matrix", "classes", "provenance"];
        const places = order.map((name) => reachable.findIndex((element) =>
          element.closest(`.${name}, #${name}, ${name === "nav" ? "nav" : "#none"}`)));
        seen.missing = places.filter((place) => place < 0).length;
        seen.ordered = places.every((place, i) => i === 0 || place > places[i - 1]);
        """,
    )
    assert seen == {"missing": 0, "ordered": True}
