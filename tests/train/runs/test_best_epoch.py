import pytest

from shardstream.train.runs.best_epoch import best_row


def rows(*figures):
    return [
        {"epoch": i, "val_accuracy": accuracy, "val_loss": loss}
        for i, (accuracy, loss) in enumerate(figures, 1)
    ]


@pytest.mark.parametrize(
    ("figures", "by", "epoch"),
    [
        # Over-confident: the loss rises while the model learns on.
        ([(0.6, 0.8), (0.7, 0.9), (0.75, 1.2)], "val_accuracy", 3),
        ([(0.6, 0.8), (0.7, 0.9), (0.75, 1.2)], "val_loss", 1),
        ([(1.0, 0.3), (1.0, 0.1), (0.9, 0.0)], "val_accuracy", 2),
        ([(0.9, 0.3), (0.9, 0.3)], "val_accuracy", 1),
    ],
)
def test_the_best_epoch(figures, by, epoch):
    assert best_row(rows(*figures), by)["epoch"] == epoch
