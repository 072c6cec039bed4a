import numpy as np
import pytest

from shardstream.train.engine.candidates import features_suffice
from shardstream.train.engine.cross_validation import CrossValidation


def found(accuracy):
    return CrossValidation(l2=1.0, temperature=1.0, accuracy=accuracy, cross_entropy=1.0, num_examples=100)


@pytest.mark.parametrize(
    ("features", "thumbnails", "guessing", "suffices"),
    [
        (1.0, 0.99, 0.3, True),  # Nothing to gain.
        (0.97, 0.6, 0.5, True),  # Photos: far better than what pixels say.
        (0.7, 0.3, 0.1, True),
        (0.9, 0.8, 0.1, False),  # Signs: pixels say nearly as much.
        (0.77, 0.74, 0.4, False),
        (0.3, 0.3, 0.5, False),  # Nobody is better than guessing: another model may be.
    ],
)
def test_features_are_enough_where_thumbnails_are_far_worse(features, thumbnails, guessing, suffices):
    share = np.float64(guessing)
    assert features_suffice(found(features), found(thumbnails), largest_class_share=share) is suffices
