"""Images of other content than their class: strangers are far, and every kind that a class has several times is not."""

from types import SimpleNamespace

import numpy as np

from shardstream.predict.findings.odd_images import find_odd_pictures
from shardstream.predict.findings.outliers import content_distances
from shardstream.predict.inference.backbone_features import DatasetFeatures


def test_strangers_are_far_and_a_second_kind_is_not(make_outcomes):
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(4, 64))

    def images(kind, count):
        return kinds[kind] + 0.5 * rng.normal(size=(count, 64))

    # Class 0 has two kinds of image, class 1 one, and a stranger is in each.
    train = np.concatenate([images(0, 60), images(1, 30), images(2, 50)])
    validation = np.concatenate([images(0, 20), images(1, 8), images(2, 1), images(2, 10), images(3, 1)])
    features = DatasetFeatures(
        {
            "train": SimpleNamespace(values=train.astype(np.float16), labels=np.repeat([0, 1], [90, 50])),
            "validation": SimpleNamespace(
                values=validation.astype(np.float16), labels=np.repeat([0, 1], [29, 11])
            ),
        }
    )
    outcomes = make_outcomes(np.repeat([0, 1], [29, 11]), [[0.5, 0.5]] * 40)
    distances = content_distances(features, "validation", outcomes)
    assert np.argsort(-distances)[:2].tolist() in ([28, 39], [39, 28])
    assert distances[[28, 39]].min() > 4.5 > np.delete(distances, [28, 39]).max()
    odd = find_odd_pictures(outcomes, distances)
    assert {(one.row, one.oddity) for one in odd} == {(28, "content"), (39, "content")}
    assert not find_odd_pictures(outcomes)


def test_of_a_small_class_nothing_is_known(make_outcomes):
    rng = np.random.default_rng(0)
    few = SimpleNamespace(values=rng.normal(size=(19, 8)).astype(np.float16), labels=np.zeros(19, np.int32))
    outcomes = make_outcomes([0] * 19, [[1.0]] * 19)
    assert not content_distances(DatasetFeatures({"train": few}), "train", outcomes).any()


def test_a_kind_whose_images_are_less_alike_is_not_far(make_outcomes):
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(3, 64))
    # By one camera nearly the same, by another less alike; and a stranger.
    spreads = np.repeat([0.2, 0.6, 0.6], [90, 12, 1])[:, None]
    values = np.repeat(kinds, [90, 12, 1], axis=0) + spreads * rng.normal(size=(103, 64))
    only = SimpleNamespace(values=values.astype(np.float16), labels=np.zeros(103, np.int32))
    distances = content_distances(
        DatasetFeatures({"train": only}), "train", make_outcomes([0] * 103, [[1.0, 0.0]] * 103)
    )
    assert distances[102] > 4.5 > distances[:102].max()
