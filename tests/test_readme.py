"""What the documents say is so."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README, KOREAN = (ROOT / name for name in ("README.md", "README.ko.md"))
DOCUMENTS = [
    README,
    KOREAN,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


SUB_COMMANDS = (["doctor"], ["export"], ["status"])


def code_blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


def test_both_languages_show_the_same_commands_and_pictures():
    for language in ("sh", "python"):
        assert [strip_comments(b) for b in code_blocks(KOREAN, language)] == [
            strip_comments(b) for b in code_blocks(README, language)
        ]
    for pattern in (r"!\[[^]]*\]\(([^)]+)\)", r"^#+ "):
        english, korean = (
            re.findall(pattern, path.read_text(encoding="utf-8"), re.M) for path in (README, KOREAN)
        )
        assert english == korean


def strip_comments(block: str) -> str:
    return re.sub(r"\s+#.*$", "", block, flags=re.M)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(path):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_options_that_are_named_exist(path, capsys):
    import importlib

    text = path.read_text(encoding="utf-8")
    for line in re.findall(r"shardstream-(?:ingest|train|predict) [^\n`|]*", text):
        program, *words = line.split()
        main = importlib.import_module(f"shardstream.{program.removeprefix('shardstream-')}.__main__").main
        command = words[:1] if program == "shardstream-ingest" or words[:1] in SUB_COMMANDS else []
        assert main([*command, "--help"]) == 0, line
        helped = capsys.readouterr().out
        for option in (word for word in words if word.startswith("--")):
            assert option.split("=")[0] in helped, f"{option} in: {line}"
