"""How far a run is: the epoch and the step."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: `step` steps of epoch number `epoch` (the first is 0) are done.

    Attributes:
        epoch: Epochs that are over, their validation included.
        step: Of the epoch after them.
        train_secs: What these steps have taken.
        waiting_secs: How much of that was waiting for input.
    """

    epoch: int = 0
    step: int = 0
    train_secs: float = 0.0
    waiting_secs: float = 0.0

    def __str__(self) -> str:
        return (
            f"step {self.step} of epoch {self.epoch + 1}" if self.step else f"the end of epoch {self.epoch}"
        )


BEGINNING = Progress()
