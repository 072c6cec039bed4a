"""What can be wrong with a dataset."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong.

    Attributes:
        filename: Inside the dataset folder.
        what: What is wrong with it.
    """

    filename: str
    what: str
