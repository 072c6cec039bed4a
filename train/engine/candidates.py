"""Whether the features of a frozen backbone are enough, or a network that learns from nothing may be better."""

from shardstream.train.engine.cross_validation import CrossValidation

# So few mistakes leave little to gain.
_FEW_MISTAKES = 0.01
# Of the skill of the features. It was 0.38 on CIFAR-10 and 0.71 on rooms, where the features are better, and 0.82 and
# 0.85 on hand signs and hiragana, where small is (docs/benchmarks.md).
_LARGE_SHARE = 0.75


def features_suffice(
    features: CrossValidation, thumbnails: CrossValidation, *, largest_class_share: float
) -> bool:
    """Returns whether a network that learns from nothing need not be trained.

    A network of our own is good where classes differ in plain ways that need no knowledge of the world: signs,
    letters, X-rays. There a linear classifier on the pixels of thumbnails is good already. Where it is far worse
    than that on the features, so are networks that begin from nothing.

    Args:
        features: Of the classifier on the features of the backbone.
        thumbnails: Of the same kind of classifier on small images.
        largest_class_share: Of the examples: the accuracy of guessing.
    """
    if 1 - features.accuracy <= _FEW_MISTAKES:
        return True
    return _skill(thumbnails, largest_class_share) < _LARGE_SHARE * _skill(features, largest_class_share)


def _skill(found: CrossValidation, guessing: float) -> float:
    """Returns the share of what guessing gets wrong that is right, 0 for what is worse than guessing."""
    return max(0.0, (found.accuracy - guessing) / max(1 - guessing, 1e-9))
