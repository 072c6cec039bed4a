import keras
import numpy as np
import pytest
import tensorflow as tf

from shardstream.train.distributed.strategy import precision_scope
from shardstream.train.models import augmentation as augment
from shardstream.train.models.augmentation import Views, make_augmentation, view_size

SIZE = 32
PICTURES = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), np.uint8)
TARGETS = np.eye(4, dtype=np.float32)[np.arange(8) % 4]
OPTIONS = {
    "default": {},
    "randaugment": {"augmentation": "randaugment"},
    "mixup": {"augmentation": "none", "mixup": 0.5},
    "cutmix": {"augmentation": "none", "cutmix": 1.0},
    "all": {"augmentation": "randaugment", "mixup": 0.2, "cutmix": 0.5},
}


def augmentation(**options):
    defaults = {"model": "small", "mixup": 0.0, "cutmix": 0.0, "seed": 5}
    return make_augmentation(
        options.pop("augmentation", "default"), image_size=SIZE, **{**defaults, **options}
    )


class Augmented:
    """What becomes of the pictures, step by step, as in training: inside of a tf.function."""

    def __init__(self, **options) -> None:
        self.augmentation = augmentation(**options)
        self._step = tf.function(lambda: self.augmentation(tf.constant(PICTURES), tf.constant(TARGETS)))

    def step(self) -> list[np.ndarray]:
        return [part.numpy() for part in self._step()]


@pytest.fixture(scope="module", params=OPTIONS)
def steps(request):
    """Three steps, and the state of the random numbers before each."""
    augmented = Augmented(**OPTIONS[request.param])
    states, results = [], []
    for _ in range(3):
        states.append([np.array(variable) for variable in augmented.augmentation.variables()])
        results.append(augmented.step())
    return request.param, states, results


def test_what_becomes_of_a_step_depends_on_seed_and_step_alone(steps):
    """The state of the generators is a function of the two, and a run that goes on from there does the same."""
    name, states, results = steps
    for first, second, third in zip(*states, strict=True):
        assert first.tolist() in ([0, 0], [5, 0], [6, 0], [7, 0], [8, 0])
        np.testing.assert_array_equal(third - first, 2 * (second - first))
    resumed = Augmented(**OPTIONS[name])
    for variable, value in zip(resumed.augmentation.variables(), states[2], strict=True):
        variable.assign(value)
    for mine, theirs in zip(resumed.step(), results[2], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_steps_and_seeds_differ(steps):
    name, _, results = steps
    assert not np.array_equal(results[0][0], results[1][0])
    other = Augmented(**OPTIONS[name], seed=6).step()
    assert not np.array_equal(other[0], results[0][0])


def test_pictures_stay_pictures(steps):
    name, _, results = steps
    for images, targets in results:
        assert images.dtype == np.float32
        assert images.shape == PICTURES.shape
        assert images.min() >= 0
        assert images.max() <= 255
        np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-5)
        assert np.array_equal(targets, TARGETS) == (name in ("default", "randaugment"))


def test_nothing_is_done_where_nothing_is_asked_for():
    images, targets = Augmented(augmentation="none").step()
    np.testing.assert_array_equal(images, PICTURES)
    np.testing.assert_array_equal(targets, TARGETS)


def ramps() -> np.ndarray:
    """A picture that says at each pixel in which row and column it is."""
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    return np.stack([rows, columns, np.zeros_like(rows)], axis=-1)


def test_no_flip_mirrors_no_picture(monkeypatch):
    monkeypatch.setattr(augment, "_JITTER", 0.0)
    pictures = np.repeat(ramps()[np.newaxis], 200, axis=0)
    for flip, share in ((True, 0.5), (False, 0.0)):
        views = np.asarray(Views(16, image_size=SIZE, seed=1, flip=flip)(pictures))
        mirrored = (views[:, 8, 0, 1] > views[:, 8, -1, 1]).mean()
        assert mirrored == pytest.approx(share, abs=0.15 if flip else 0)


def test_views_are_parts_of_the_picture_enlarged_or_made_smaller_by_a_third_and_half_of_them_mirrored(
    monkeypatch,
):
    monkeypatch.setattr(augment, "_JITTER", 0.0)
    size = 16
    pictures = np.repeat(ramps()[np.newaxis], 200, axis=0)
    views = np.asarray(Views(size, image_size=SIZE, seed=1)(pictures))
    assert views.shape == (200, size, size, 3)
    assert views.min() >= 0
    assert views.max() <= SIZE - 1 + 1e-4
    # Away from its edges a view runs in a straight line over the rows and the columns of the picture.
    inner = views[:, 2:-2, 2:-2]
    vertical = (inner[:, -1, 0, 0] - inner[:, 0, 0, 0]) / 11
    horizontal = (inner[:, 0, -1, 1] - inner[:, 0, 0, 1]) / 11
    steps = np.arange(12)
    rows = inner[:, :1, :1, 0] + (vertical[:, np.newaxis] * steps)[:, :, np.newaxis]
    columns = inner[:, :1, :1, 1] + (horizontal[:, np.newaxis] * steps)[:, np.newaxis]
    np.testing.assert_allclose(inner[..., 0], np.broadcast_to(rows, (200, 12, 12)), atol=0.3)
    np.testing.assert_allclose(inner[..., 1], np.broadcast_to(columns, (200, 12, 12)), atol=0.3)
    assert vertical.min() > 0
    assert 60 < (horizontal < 0).sum() < 140
    assert 0.76 / 1.16 < np.sqrt(vertical * np.abs(horizontal)).min() < 0.8
    assert 1.4 < np.sqrt(vertical * np.abs(horizontal)).max() < 1.51
    assert 0.74 < (vertical / np.abs(horizontal)).min() < 0.8
    assert 1.25 < (vertical / np.abs(horizontal)).max() < 1.34
    # They come from everywhere.
    assert views[:, size // 2, size // 2, :2].min() < 8
    assert views[:, size // 2, size // 2, :2].max() > SIZE - 8


def test_the_light_changes_and_a_gray_picture_stays_gray():
    gray = np.full((50, SIZE, SIZE, 3), 100, np.uint8)
    views = np.asarray(Views(8, image_size=SIZE, seed=1)(gray))
    np.testing.assert_allclose(views, np.broadcast_to(views[:, :1, :1, :1], views.shape), atol=1e-3)
    assert 69 < views.min() < 75
    assert 125 < views.max() < 131


@pytest.mark.parametrize("name", ["default", "all"])
def test_half_precision_leaves_the_positions_of_pixels_alone(name):
    expected = Augmented(**OPTIONS[name]).step()
    with precision_scope("mixed_bfloat16"):
        found = Augmented(**OPTIONS[name]).step()
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize(
    ("augmentation", "model", "image_size", "expected"),
    [
        ("default", "small", 300, 150),
        ("default", "small", 128, 64),
        ("default", "small", 127, 127),  # Half of it shows too little.
        ("default", "small", 32, 32),
        ("default", "ResNet50", 224, 224),
        ("default", "notebook", 300, None),
        ("randaugment", "notebook", 300, 300),
        ("none", "small", 300, None),
    ],
)
def test_the_size_of_views(augmentation, model, image_size, expected):
    assert view_size(augmentation, model=model, image_size=image_size) == expected
