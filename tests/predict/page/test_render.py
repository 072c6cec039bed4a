"""The page: what it says, what hostile names cannot do to it, and that it loads nothing."""

import base64
import dataclasses
import hashlib
import html.parser
import re

import numpy as np
import pytest
from PIL import Image

from shardstream.predict.findings.duplicates import Duplicates, EntryPair, ManifestEntry
from shardstream.predict.findings.gallery import Shown
from shardstream.predict.inference.thumbnails import PICTURE_BYTES, make_picture
from shardstream.predict.output.palette import INK, PAPER, QUIET, RIGHT, WRONG
from shardstream.predict.page.render import render_page
from shardstream.predict.page.texts.languages import TEXTS

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
SVG_EMPTY = {"rect", "path", "circle"}


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
def _make_page(make_report):
    """Renders predictions, given as (path, label, probabilities)."""

    def make_page(predictions, *, lang="en", **values):
        return render_page(make_report(predictions, **values), lang)

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
    assert [found.get("type") for found in page.all("script")] == ["application/json", None]
    assert len([found for found in page.all("img") if "src" in found]) == len(HOSTILE)
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
    style, script = page.text_by_tag["style"][0], page.text_by_tag["script"][-1]
    assert not re.search(r"url\(|@import|https?:|//[a-z]", style)
    assert not re.search(r"fetch|XMLHttp|import\(|https?:|eval|innerHTML", script)


def test_the_policy_allows_its_own_style_and_script_and_nothing_else(hostile):
    _, page = hostile
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    rules = dict(rule.split(" ", 1) for rule in policy["content"].split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for rule, tag in (("style-src", "style"), ("script-src", "script")):
        digest = hashlib.sha256(page.text_by_tag[tag][-1].encode()).digest()
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
    assert text.startswith(
        "Accuracy 50.0 % 95 % interval 15.0 % to 85.0 % 2 of 4 images correct, 2 incorrect"
    )
    assert "실외 exterior0.0 % 1 of 1 missed" in text
    assert "음식 predicted as 실내1 1 image, 50.0 % of the class" in text


def test_cards_come_wrong_first_with_the_highest_loss_first(usual):
    cards = [found for found in usual.all("li") if (found.get("class") or "").startswith("card")]
    assert [(card["data-verdict"], card["data-actual"], card["data-predicted"]) for card in cards] == [
        ("wrong", "2", "0"),
        ("wrong", "0", "1"),
        ("right", "1", "1"),
        ("right", "0", "0"),
    ]


def cards_of(page):
    return [" ".join(text.split()) for text in page.text_by_tag["li"] if "pixels" in text]


def test_a_card_says_right_or_wrong_in_words_and_has_names_size_and_probabilities(usual):
    assert cards_of(usual)[0] == (
        "incorrectloss 2.30 Actual실외 exterior Predicted음식 food "
        "음식60.0 % 실내30.0 % 실외10.0 % exterior/d.jpgsource size 640 × 480 pixelss__3"
    )


def test_the_actual_class_is_among_the_first_bars_however_unlikely(make_page):
    shares = [0.5, 0.2, 0.15, 0.1, 0.04, 0.01]
    page = Page(make_page([("a.jpg", 5, shares)], class_names=list("abcdef")))
    (card,) = cards_of(page)
    assert "a50.0 % b20.0 % f1.0 % c15.0 % d10.0 %" in card


def test_matrix_cells_that_have_pictures_are_buttons_for_the_filter(usual):
    cells = [found for found in usual.all("button") if "shade" in (found.get("class") or "")]
    assert [(cell["data-actual"], cell["data-predicted"], cell["class"]) for cell in cells] == [
        ("0", "0", "hit shade5"),
        ("0", "1", "miss shade5"),
        ("1", "1", "hit shade9"),
        ("2", "0", "miss shade9"),
    ]
    assert cells[1]["aria-label"] == "1, 50.0\N{NO-BREAK SPACE}% of the row: 음식 predicted as 실내"


def test_pictures_are_the_bytes_of_the_records(trial, tmp_path):
    from shardstream.predict.__main__ import main

    assert main([str(trial.run), str(trial.data), "--all", "--out", str(tmp_path)]) == 0
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    sources = [found["src"] for found in page.all("img") if "src" in found]
    embedded = {base64.b64decode(source.split(",", 1)[1]) for source in sources}
    assert embedded == {photo.encoded() for photo in trial.photos}
    assert {source.split(";")[0] for source in sources} == {"data:image/png", "data:image/jpeg"}


def test_figures_that_are_not_defined_are_dashes(make_page):
    page = Page(make_page([("a.jpg", 0, [1.0, 0.0])], class_names=["a", "b"]))
    rows = ["".join(row.split()) for row in page.text_by_tag["tr"]]
    assert "b–––0" in rows
    answer = page.text_by_tag["section"][0]
    assert "Every image was predicted correctly." in answer
    assert "Not tested, as no image of them was predicted: b." in answer


def test_a_page_without_pictures_says_so(make_page):
    page = Page(make_page(USUAL, gallery_size=0, **USUAL_NAMES))
    assert not [found for found in page.all("img") if "src" in found]
    assert not page.all("form", id="filter")
    assert TEXTS["en"]["gallery_empty"] in page.text_by_tag["section"][1]


@pytest.mark.parametrize(
    ("gallery_size", "sampling"), [(0, "uniform"), (1, "uniform"), (2, "confident-errors"), (9, "borderline")]
)
def test_the_lists_of_data_to_check_do_not_depend_on_which_images_the_page_has(
    make_page, gallery_size, sampling
):
    predictions = [
        (f"a/{i:02d}.jpg", i % 2, [0.9, 0.1] if i % 2 == (i < 5) else [0.1, 0.9]) for i in range(40)
    ]
    brightness = np.where(np.arange(40) == 30, 250, 100 + np.arange(40) % 9)
    text = make_page(
        predictions,
        class_names=["a", "b"],
        gallery_size=gallery_size,
        sampling=sampling,
        brightness=brightness,
    )
    section = " ".join(Page(text).text_by_tag["section"][-2].split())
    for path in ("a/00.jpg", "a/01.jpg", "a/02.jpg", "a/03.jpg", "a/04.jpg", "a/30.jpg"):
        assert path in section
    assert "No image is" not in section


@pytest.mark.parametrize("is_known", [True, False])
def test_of_content_nothing_is_said_where_it_was_not_compared(make_report, is_known):
    report = make_report(USUAL, **USUAL_NAMES)
    findings = dataclasses.replace(report.findings, content_is_known=is_known)
    text = render_page(dataclasses.replace(report, findings=findings), "en")
    assert ("or of other content than its class" in text) == is_known


def test_where_no_image_is_incorrect_none_is_called_so(make_page):
    names = [f"class{i}" for i in range(30)]
    predictions = [(f"{i}.jpg", i, np.where(np.arange(30) == i, 0.71, 0.01)) for i in range(30)]
    text = make_page(predictions, class_names=names, sampling="confident-errors")
    assert TEXTS["en"]["gallery_empty"] not in text
    assert "with the most errors" not in text
    assert "20 of 30 classes are shown" in text


def test_one_image_does_not_show_that_probabilities_are_too_high(make_page):
    wrong = ("a.jpg", 0, [0.1, 0.9])
    assert TEXTS["en"]["advice_over"] not in make_page([wrong], class_names=["a", "b"])
    assert TEXTS["en"]["advice_over"] in make_page([wrong] * 20, class_names=["a", "b"])


def test_the_ends_of_a_group_differ(make_page):
    sharpness = np.linspace(2.2, 4.1, 80)
    text = make_page(
        [(f"{i}.jpg", i % 2, [0.9, 0.1]) for i in range(80)], class_names=["a", "b"], sharpness=sharpness
    )
    assert "sharpness 2.2 to 2.7" in text


def test_a_page_with_some_of_the_pictures_says_which(make_page):
    page = Page(make_page(USUAL, gallery_size=3, **USUAL_NAMES))
    assert "3 of the 4 predicted images" in page.text_by_tag["section"][1]


def thousand_classes():
    names = [f"class{i:04d}" for i in range(1000)]
    certain = np.full((1000, 1000), 0.1 / 999) + (0.9 - 0.1 / 999) * np.eye(1000)
    # Every third is predicted as the next class.
    predictions = [(f"{i % 1000}/{i}.jpg", i % 1000, certain[(i + (i % 3 == 0)) % 1000]) for i in range(3000)]
    return predictions, names


def test_a_thousand_classes_make_no_page_of_a_million_cells(make_page):
    predictions, names = thousand_classes()
    text = make_page(predictions, class_names=names, gallery_size=20)
    page = Page(text)
    assert len(text) < 1_500_000
    assert "Of 1,000 classes these are the 20 with the most errors" in text
    assert len([found for found in page.all("button") if "shade" in (found.get("class") or "")]) <= 400
    assert "The 300 most frequent of 1,000" in text


def test_two_hundred_pictures_are_less_than_five_megabytes(make_report, make_record):
    rng = np.random.default_rng(0)
    report = make_report(
        [(f"{'folder/' * 10}{i}.jpg", i % 3, rng.dirichlet(np.ones(3))) for i in range(200)], **USUAL_NAMES
    )
    # Richer in detail than photos: a JPEG of quality 95 takes 80 kB.
    coarse = rng.integers(0, 256, (20, 100, 100, 3), np.uint8)
    images = [np.asarray(Image.fromarray(one).resize((300, 300), Image.Resampling.BICUBIC)) for one in coarse]
    made = [make_picture(make_record(), images[i], max_bytes=PICTURE_BYTES // 200) for i in range(20)]
    pictures = [Shown(shown.prediction, made[i % 20]) for i, shown in enumerate(report.pictures)]
    text = render_page(dataclasses.replace(report, pictures=pictures), "en")
    assert text.count("data:image/") == 200
    assert 2_000_000 < len(text.encode()) < 5_000_000


def test_advice_comes_first_and_points_to_what_shows_it(make_page):
    # Confidently wrong, where the others are as often wrong as they should be.
    wrong = [(f"a{i}.jpg", 0, [0.001, 0.998, 0.001]) for i in range(4)]
    right = [(f"b{i}.jpg", i % 3, np.eye(3)[i % 3] * 0.97 + 0.01) for i in range(120)]
    text = make_page([*wrong, *right], **USUAL_NAMES)
    advice = Page(text).text_by_tag["section"][0]
    assert "4 labels are probably wrong" in advice
    assert "음식 is predicted as 실내" in advice
    targets = re.findall(r'<li><a href="#([a-z]+)">', text)
    assert targets[0] == "labels"
    assert set(targets) <= set(re.findall(r'id="([a-z]+)"', text))


def test_look_alikes_are_named_with_their_splits(make_page):
    def copy(path, split, class_name="food"):
        return ManifestEntry(path=path, class_name=class_name, split=split, position=0)

    duplicates = Duplicates(
        num_leaks=30,
        num_copies=7,
        num_contradictions=1,
        num_repeats=0,
        num_conflicts=2,
        leaks=[EntryPair(copy("food/a<b>.jpg", "validation"), copy("food/c.jpg", "train"), same=True)],
        contradictions=[EntryPair(copy("food/x.jpg", "train"), copy("exterior/y.jpg", "train", "exterior"))],
        repeats=[],
    )
    page = Page(make_page(USUAL, duplicates=duplicates, **USUAL_NAMES))
    (issues,) = (text for text in page.text_by_tag["section"] if TEXTS["en"]["duplicates_meaning"] in text)
    issues = " ".join(issues.split())
    assert "음식 validation food/a<b>.jpg" in issues
    assert "실외 train exterior/y.jpg" in issues
    assert "The first 1 of 30; findings.csv has them all" in issues
    assert "2 files were left out at ingest" in issues


@pytest.mark.parametrize(
    ("lang", "fine_tune", "said"),
    [
        ("en", "none", "weights 1.2, trained on ImageNet, not fine-tuned"),
        ("en", "last", "weights 1.2, trained on ImageNet, the last third of the network fine-tuned"),
        ("ko", "none", "weights 1.2, ImageNet로 학습, 미세 조정 안 함"),
        ("ko", "full", "weights 1.2, ImageNet로 학습, 신경망 전체를 미세 조정"),
    ],
)
def test_what_was_done_with_pretrained_weights_is_said_in_words(make_report, lang, fine_tune, said):
    report = make_report(USUAL, **USUAL_NAMES)
    pretrained = {"name": "weights", "version": "1.2", "trained_on": "ImageNet", "fine_tune": fine_tune}
    model = dataclasses.replace(report.provenance.model_info, pretrained=pretrained)
    provenance = dataclasses.replace(report.provenance, model_info=model)
    page = Page(render_page(dataclasses.replace(report, provenance=provenance), lang))
    assert said in page.text_by_tag["dd"]


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_both_languages_have_every_sentence_with_the_same_gaps(lang):
    assert TEXTS[lang].keys() == TEXTS["en"].keys()
    for key, sentence in TEXTS[lang].items():
        allowed = set(re.findall(r"{(\w+)}", TEXTS["en"][key]))
        assert set(re.findall(r"{(\w+)}", sentence)) <= allowed, key
        assert sentence.strip(), key


def test_a_page_in_korean_has_no_english_sentence(make_page):
    text = make_page(USUAL, lang="ko", **USUAL_NAMES)
    page = Page(text)
    assert page.all("html", lang="ko")
    for key, sentence in TEXTS["en"].items():
        # Single words may be names of classes or tools.
        if sentence != TEXTS["ko"][key] and len(sentence.split()) > 2 and "{" not in sentence:
            assert sentence not in text, key


def test_the_page_has_the_colors_of_the_plots(make_page):
    text = make_page(USUAL, **USUAL_NAMES)
    for name, color in (("right", RIGHT), ("wrong", WRONG), ("ink", INK), ("quiet", QUIET), ("panel", PAPER)):
        assert f"--{name}: {color};" in text
