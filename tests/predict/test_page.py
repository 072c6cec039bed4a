"""The page: what it says, what hostile names cannot do to it, and that it loads nothing."""

import base64
import hashlib
import html.parser
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from predict.analysis import summarize
from predict.calibration import calibrate
from predict.fonts import Lettering
from predict.gallery import Shown, choose_rows
from predict.page import render_page
from predict.pictures import make_picture
from predict.provenance import Provenance
from predict.result import Report
from predict.selection import select_all
from predict.texts import ENGLISH

HOSTILE = [
    "<script>alert(1)</script>",
    "</title><img src=x onerror=alert(1)>",
    "\"'><b onmouseover=alert(1)>&amp;",
    "two\nlines\ttab",
    "right\u202eto left\u2066",
    "esc\x1b[31mred\x00",
    "{{ 7 * 7 }}{% raw %}",
    "김치찌개 " + "아주긴이름" * 40,
]

VOID = {"meta", "link", "img", "input", "br"}
# Written without a closing tag where HTML lets them.
SVG_EMPTY = {"rect", "path"}


class Page(html.parser.HTMLParser):
    """Takes a page apart and checks that what is opened is closed."""

    def __init__(self, text):
        super().__init__()
        self._parts: dict[str, list[list[str]]] = {}
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[tuple[str, list[str]]] = []
        self.feed(text)
        self.close()
        assert self._open == []
        self.text_by_tag = {tag: ["".join(parts) for parts in texts] for tag, texts in self._parts.items()}

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            parts: list[str] = []
            self._open.append((tag, parts))
            self._parts.setdefault(tag, []).append(parts)

    def handle_startendtag(self, tag, attrs):
        assert tag in SVG_EMPTY
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        for _, parts in self._open:
            parts.append(data)

    def all(self, tag, **attributes):
        return [found for name, found in self.elements if name == tag and attributes.items() <= found.items()]


@pytest.fixture(scope="module", name="make_page")
def _make_page(make_record, make_prediction, make_outcomes):
    """Renders predictions, given as (path, label, probabilities)."""

    def make_page(predictions, *, class_names, display_names=None, gallery_size=200, name="photos"):
        records = [
            make_record(
                path,
                position=i,
                label=label,
                encoded=b"\x89PNG\r\n\x1a\n" + str(i).encode(),
                media_type="image/png",
            )
            for i, (path, label, _) in enumerate(predictions)
        ]
        outcomes = make_outcomes(
            [label for _, label, _ in predictions], [shares for _, _, shares in predictions]
        )
        weights = np.ones(len(records))
        rows = choose_rows(outcomes, "uniform", gallery_size, seed=1, named=np.array([], np.int64))
        report = Report(
            out=Path("out"),
            sampling="uniform",
            selection=select_all("validation", len(records)),
            outcomes=outcomes,
            summary=summarize(outcomes, weights, num_classes=len(class_names)),
            calibration=calibrate(outcomes, weights),
            pictures=[
                Shown(
                    make_prediction(records[row], predictions[row][2]),
                    make_picture(records[row], np.zeros((2, 2, 3), np.uint8), max_bytes=10_000),
                )
                for row in rows
            ],
            class_names=class_names,
            display_names=display_names or class_names,
            lettering=Lettering(class_names, Path("font")),
            checks=[],
            metrics={},
            provenance=Provenance(
                dataset=name,
                split=name,
                model=name,
                facts=[("Command", name)],
                training_config=f'{{"name": "{name}"}}',
            ),
        )
        return render_page(report, "en")

    return make_page


def hostile_page(make_page):
    num_classes = len(HOSTILE)
    predictions = [
        (name, i, np.roll(np.linspace(0.5, 0, num_classes), i + (i % 3 == 0)))
        for i, name in enumerate(HOSTILE)
    ]
    return make_page(predictions, class_names=HOSTILE, display_names=HOSTILE[::-1], name=HOSTILE[0])


@pytest.fixture(scope="module")
def hostile(make_page):
    text = hostile_page(make_page)
    return text, Page(text)


def test_hostile_names_make_no_elements(hostile):
    text, page = hostile
    assert len(page.all("script")) == 1
    assert len(page.all("img")) == len(HOSTILE)
    assert not page.all("b", onmouseover="alert(1)")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "{{ 7 * 7 }}{% raw %}" in text


def test_hostile_names_are_shown_with_escapes_for_what_does_something(hostile):
    _, page = hostile
    shown = page.text_by_tag["bdi"]
    for name in (
        "<script>alert(1)</script>",
        r"two\nlines\ttab",
        r"right\u202eto left\u2066",
        r"esc\x1b[31mred\x00",
    ):
        assert name in shown


def test_no_character_that_does_something_is_in_the_page(hostile):
    text, _ = hostile
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


def test_the_page_refers_to_no_address(hostile):
    _, page = hostile
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "srcset", "poster", "data", "formaction", "background"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
    style, script = page.text_by_tag["style"][0], page.text_by_tag["script"][0]
    assert not re.search(r"url\(|@import|https?:|//[a-z]", style)
    assert not re.search(r"fetch|XMLHttp|import\(|https?:|eval|innerHTML", script)


def test_the_policy_allows_its_own_style_and_script_and_nothing_else(hostile):
    _, page = hostile
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    rules = dict(rule.split(" ", 1) for rule in policy["content"].split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for rule, tag in (("style-src", "style"), ("script-src", "script")):
        digest = hashlib.sha256(page.text_by_tag[tag][0].encode()).digest()
        assert rules[rule] == f"'sha256-{base64.b64encode(digest).decode()}'"
    # The policy would forbid them, and the page would look broken.
    assert not [attributes for _, attributes in page.elements if "style" in attributes]


USUAL = [
    ("food/a.jpg", 0, [0.9, 0.1, 0.0]),
    ("food/b.jpg", 0, [0.2, 0.7, 0.1]),
    ("interior/c.jpg", 1, [0.1, 0.8, 0.1]),
    ("exterior/d.jpg", 2, [0.6, 0.3, 0.1]),
]
USUAL_NAMES = {"class_names": ["food", "interior", "exterior"], "display_names": ["음식", "실내", "실외"]}


@pytest.fixture(scope="module")
def usual(make_page):
    return Page(make_page(USUAL, **USUAL_NAMES))


def test_the_page_opens_with_the_answer(usual):
    text = " ".join(usual.text_by_tag["section"][0].split())
    assert text.startswith("Accuracy 50.0 % 95 % interval 15.0 % to 85.0 % 2 of 4 pictures right, 2 wrong")
    assert "실외 exterior0.0 % 1 of 1 missed" in text
    assert "음식 taken for 실내1 1 picture, 50.0 % of the class" in text


def test_cards_come_wrong_first_with_the_highest_loss_first(usual):
    cards = [found for found in usual.all("li") if (found.get("class") or "").startswith("card")]
    assert [(card["data-verdict"], card["data-actual"], card["data-predicted"]) for card in cards] == [
        ("wrong", "2", "0"),
        ("wrong", "0", "1"),
        ("right", "1", "1"),
        ("right", "0", "0"),
    ]


def test_a_card_says_right_or_wrong_in_words_and_has_names_size_and_probabilities(usual):
    cards = [text for text in usual.text_by_tag["li"] if "pixels" in text]
    first = " ".join(cards[0].split())
    assert first == (
        "wrongloss 2.30 Actual실외 exterior Predicted음식 food "
        "음식60.0 % 실내30.0 % 실외10.0 % exterior/d.jpg640 × 480 pixels"
    )


def test_the_actual_class_is_among_the_bars_however_unlikely(make_page):
    page = Page(make_page([("a.jpg", 4, [0.5, 0.3, 0.15, 0.04, 0.01])], class_names=list("abcde")))
    (card,) = (text for text in page.text_by_tag["li"] if "pixels" in text)
    assert "a50.0 % b30.0 % e1.0 %" in " ".join(card.split())


def test_matrix_cells_that_have_pictures_are_buttons_for_the_filter(usual):
    cells = [found for found in usual.all("button") if "aria-label" in found]
    assert [(cell["data-actual"], cell["data-predicted"], cell["class"]) for cell in cells] == [
        ("0", "0", "hit shade5"),
        ("0", "1", "miss shade5"),
        ("1", "1", "hit shade9"),
        ("2", "0", "miss shade9"),
    ]
    assert cells[1]["aria-label"] == "1 pictures of 음식 taken for 실내, 50.0\N{NO-BREAK SPACE}% of the row"


def test_pictures_are_the_bytes_of_the_records(trial, tmp_path):
    from predict.__main__ import main

    assert main([str(trial.run), str(trial.data), "--all", "--out", str(tmp_path)]) == 0
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    embedded = {base64.b64decode(found["src"].split(",", 1)[1]) for found in page.all("img")}
    assert embedded == {photo.encoded() for photo in trial.photos}
    assert {found["src"].split(";")[0] for found in page.all("img")} == {"data:image/png", "data:image/jpeg"}


def test_figures_that_are_not_defined_are_dashes(make_page):
    page = Page(make_page([("a.jpg", 0, [1.0, 0.0])], class_names=["a", "b"]))
    rows = [" ".join(row.split()) for row in page.text_by_tag["tr"]]
    assert "b –––0" in [re.sub(r"\s+(?=[–\d])", "", row).replace("b", "b ", 1) for row in rows]
    assert "Every picture was right" in " ".join(page.text_by_tag["section"][0].split())


def test_a_page_without_pictures_says_so(make_page):
    page = Page(make_page(USUAL, gallery_size=0, **USUAL_NAMES))
    assert not page.all("img")
    assert not page.all("form")
    assert ENGLISH["gallery_empty"] in page.text_by_tag["section"][1]


def test_a_page_with_some_of_the_pictures_says_which(make_page):
    page = Page(make_page(USUAL, gallery_size=3, **USUAL_NAMES))
    assert "The 3 of 4 pictures that come first in this order." in page.text_by_tag["section"][1]


def test_a_thousand_classes_make_no_page_of_a_million_cells(make_page):
    names = [f"class{i:04d}" for i in range(1000)]
    certain = np.eye(1000, dtype=np.float32)
    # Every third is taken for the next class.
    predictions = [(f"{i}.jpg", i, certain[(i + (i % 3 == 0)) % 1000]) for i in range(1000)]
    text = make_page(predictions, class_names=names, gallery_size=20)
    page = Page(text)
    assert len(text) < 2_000_000
    assert "The 30 of 1,000 classes with the most errors" in text
    assert len(page.all("th", scope="col")) == 5 + 30


def test_every_sentence_is_used():
    sources = "".join(
        path.read_text(encoding="utf-8")
        for path in _package_files()
        if path.name not in ("texts.py", "page.css")
    )
    unused = [key for key in ENGLISH if f"t.{key}" not in sources and f'["{key}"]' not in sources]
    assert unused == []


def _package_files():
    from pathlib import Path

    import predict

    folder = Path(predict.__file__).parent
    return [*folder.glob("*.py"), *folder.glob("templates/*")]


PROBE = """
const seen = [];
const shown = () => [...document.querySelectorAll("#cards > li")].filter((card) => !card.hidden).length;
const note = (name) => seen.push(name + " " + shown() + " of " + document.querySelector("output").textContent);
const set = (name, value) => {
  const element = document.getElementById("filter").elements[name];
  element.value = value;
  document.getElementById("filter").dispatchEvent(new Event("input"));
};
note("all");
set("verdict", "wrong"); note("wrong");
set("actual", "0"); note("wrong food");
set("verdict", "right"); note("right food");
document.querySelector(".matrix .miss[data-actual='2']").click(); note("cell");
seen.push(document.activeElement.id, document.getElementById("filter").elements.predicted.value);
set("verdict", "right"); note("nothing"); seen.push(String(document.getElementById("nothing").hidden));
document.querySelector("#filter button").click();
setTimeout(() => {
  note("reset");
  document.body.dataset.seen = seen.join(" | ");
  document.body.dataset.width = String(document.documentElement.scrollWidth <= window.innerWidth);
}, 50);
"""


@pytest.mark.parametrize("width", [1440, 390])
def test_filters_in_a_real_browser(make_page, tmp_path, width):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    text = make_page(USUAL, **USUAL_NAMES)
    allowed = base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()
    text = text.replace("script-src ", f"script-src 'sha256-{allowed}' ", 1)
    text = text.replace("</body>", f"<script>{PROBE}</script></body>")
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    switches = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=3000 --dump-dom "
        f"--user-data-dir={tmp_path / 'profile'} --window-size={width},2000"
    )
    done = subprocess.run(
        [browser, *switches.split(), (tmp_path / "page.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
    )
    (body,) = Page(done.stdout[done.stdout.index("<!DOCTYPE") :]).all("body")
    assert body["data-seen"].split(" | ") == [
        "all 4 of 4 of 4 shown",
        "wrong 2 of 2 of 4 shown",
        "wrong food 1 of 1 of 4 shown",
        "right food 1 of 1 of 4 shown",
        "cell 1 of 1 of 4 shown",
        "gallery-title",
        "0",
        "nothing 0 of 0 of 4 shown",
        "false",
        "reset 4 of 4 of 4 shown",
    ]
    assert body["data-width"] == "true"  # Nothing sticks out to the side.
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
