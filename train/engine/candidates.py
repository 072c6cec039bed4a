"""Decides whether features of a frozen backbone suffice, or a network trained from scratch may be better."""

from shardstream.train.engine.cross_validation import CrossValidation

# Below this error rate there is little to gain.
_FEW_MISTAKES = 0.01
# Fraction of the skill of the features. It was 0.38 on CIFAR-10 and 0.71 on rooms, where the features are better, and
# 0.82 and 0.85 on hand signs and hiragana, where `small` is better (docs/benchmarks.md).
_LARGE_SHARE = 0.75


def features_suffice(
    features: CrossValidation, thumbnails: CrossValidation, *, largest_class_share: float
) -> bool:
    """Returns whether training a network from scratch is unnecessary.

    A network trained from scratch does well where classes differ in simple ways that need no knowledge of the world:
    signs, letters, X-rays. There a linear classifier on the pixels of thumbnails does well already. Where it is far
    worse than one on the features, so are networks trained from scratch.

    Args:
        features: Result of the classifier on the features of the backbone.
        thumbnails: Result of the same kind of classifier on thumbnails.
        largest_class_share: Fraction of examples in the largest class: the accuracy of guessing.
    """
    if 1 - features.accuracy <= _FEW_MISTAKES:
        return True
    return _skill(thumbnails, largest_class_share) < _LARGE_SHARE * _skill(features, largest_class_share)


def _skill(found: CrossValidation, guessing: float) -> float:
    """Returns the fraction of the errors of guessing that the classifier avoids; 0 if it is worse than guessing."""
    return float(max(0.0, (found.accuracy - guessing) / max(1 - guessing, 1e-9)))
