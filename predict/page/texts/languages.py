"""All sentences of the page, by language: another language is one more dictionary."""

from collections.abc import Mapping
from typing import Literal

from shardstream.predict.inference.selection import Selection
from shardstream.predict.page.texts.en import ENGLISH
from shardstream.predict.page.texts.en_findings import ENGLISH_FINDINGS
from shardstream.predict.page.texts.ko import KOREAN
from shardstream.predict.page.texts.ko_findings import KOREAN_FINDINGS

Language = Literal["en", "ko"]
Texts = Mapping[str, str]

TEXTS: Mapping[Language, Texts] = {
    "en": {**ENGLISH, **ENGLISH_FINDINGS},
    "ko": {**KOREAN, **KOREAN_FINDINGS},
}


def describe_selection(selection: Selection, t: Texts) -> str:
    """Returns a description of the selection, in the language of `t`."""
    drawn = len(selection.positions)
    return t[f"selection_{selection.rule}"].format(
        count=f"{drawn:,}",
        all=f"{selection.num_available:,}",
        split=selection.split,
        seed=selection.seed,
        batch=selection.batch,
        batches=f"{selection.num_batches:,}",
        first=f"{int(selection.positions[0]) + 1:,}" if drawn else "0",
        last=f"{int(selection.positions[-1]) + 1:,}" if drawn else "0",
    )
