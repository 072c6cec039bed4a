"""Progress of a run: epoch and step."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run: `step` steps of epoch number `epoch` (from 0) are done.

    Attributes:
        epoch: Completed epochs, including their validation.
        step: Completed steps of the current epoch.
        train_secs: Duration of these steps.
        waiting_secs: How much of it was waiting for input.
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
