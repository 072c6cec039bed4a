"""What can be wrong with a dataset."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, slots=True)
class Corruption:
    """One thing that is wrong.

    Attributes:
        filename: Inside the dataset folder.
        what: What is wrong with it.
        remedy: The command that helps: "repair" gives a file the bytes that it had; where these are what is wrong,
            "update" does, once the photo is repaired or gone.
    """

    filename: str
    what: str
    remedy: Literal["repair", "update"] = "repair"
