"""What the documents say is so."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README, KOREAN = (ROOT / name for name in ("README.md", "README.ko.md"))
DOCUMENTS = [
    README,
    KOREAN,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
# One line of the tree: its drawing, a name, and what it is.
TREE_LINE = re.compile(r"^(?P<indent>[│ ]*)[├└]── (?P<name>\S+)\s+(?P<what>\S.*)$")


def code_blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


def tree(path: Path) -> dict[str, str]:
    """Returns what the file tree of a README says of each path."""
    (block,) = (block for block in code_blocks(path, "text") if block.startswith("shardstream/\n"))
    said: dict[str, str] = {}
    parents: list[str] = []
    for line in block.splitlines()[1:]:
        match = TREE_LINE.match(line)
        assert match, f"{path.name}: no description: {line}"
        depth = len(match["indent"]) // 4
        parents = [*parents[:depth], match["name"]]
        said["".join(parents)] = match["what"]
    return said


def tracked_files() -> list[str]:
    result = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip("not a git checkout")
    return result.stdout.splitlines()


@pytest.mark.parametrize("path", [README, KOREAN], ids=lambda path: path.name)
def test_the_tree_names_every_file_and_no_other(path):
    said = tree(path)
    files = tracked_files()
    folders_as_a_whole = [
        name
        for name in said
        if name.endswith("/") and not any(other != name and other.startswith(name) for other in said)
    ]
    inside = {file for file in files if file.startswith(tuple(folders_as_a_whole))}
    named = {name for name in said if not name.endswith("/")}
    assert named == set(files) - inside - {f for f in files if f.endswith("__init__.py")}
    for folder in folders_as_a_whole:
        assert any(file.startswith(folder) for file in files), folder


def test_both_languages_show_the_same_commands_files_and_pictures():
    for language in ("sh", "python"):
        assert [strip_comments(b) for b in code_blocks(KOREAN, language)] == [
            strip_comments(b) for b in code_blocks(README, language)
        ]
    assert list(tree(KOREAN)) == list(tree(README))
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
        main = importlib.import_module(f"{program.removeprefix('shardstream-')}.__main__").main
        command = words[:1] if program == "shardstream-ingest" else []
        with pytest.raises(SystemExit) as left:
            main([*command, "--help"])
        assert left.value.code == 0, line
        helped = capsys.readouterr().out
        for option in (word for word in words if word.startswith("--")):
            assert option.split("=")[0] in helped, f"{option} in: {line}"
