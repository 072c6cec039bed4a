"""Corruption of a dataset, as reported by `verify`."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, slots=True)
class Corruption:
    """One corrupt file.

    Attributes:
        filename: Name inside the dataset folder.
        what: Description of the corruption.
        remedy: The command that fixes it: "repair" restores the original bytes of a file; if those are invalid,
            "update" fixes it after the source image was fixed or removed.
    """

    filename: str
    what: str
    remedy: Literal["repair", "update"] = "repair"
