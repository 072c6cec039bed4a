import re

import keras
import pytest

from shardstream.ingest.common.errors import ConfigError
from shardstream.train.models.registry import APPLICATIONS, check_image_size, find_model


def test_the_table_has_every_application_of_keras():
    assert set(APPLICATIONS) == {name for name in vars(keras.applications) if name[0].isupper()}


@pytest.mark.parametrize("name", ["MobileNetV3Small", "InceptionV3", "InceptionResNetV2", "Xception"])
def test_the_least_size_is_that_of_keras(name):
    least = APPLICATIONS[name].least_size
    build = getattr(keras.applications, name)
    with pytest.raises(ValueError, match=f"Input size must be at least {least}x{least}"):
        build(include_top=False, weights=None, input_shape=(least - 1, least - 1, 3))


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("resnet50", "ResNet50"),
        ("CONVNEXTTINY", "ConvNeXtTiny"),
        ("Small", "small"),
        ("LITE0", "lite0"),
        ("seed", "notebook"),
    ],
)
def test_names_are_found_however_they_are_written(typed, name):
    assert find_model(typed) == name


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("resnet5", "model 'resnet5' is not known; did you mean ResNet50 or "),
        ("smal", "model 'smal' is not known; did you mean small?"),
        (
            "?",
            "model '?' is not known; it has to be auto, small, lite0, notebook or a name of keras.applications",
        ),
    ],
)
def test_a_typo_is_answered_with_what_was_meant(typed, sentence):
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}"):
        find_model(typed)


def test_pictures_that_are_too_small_are_refused():
    check_image_size("Xception", 71)
    check_image_size("small", 8)
    check_image_size("lite0", 32)
    sentence = (
        "Xception takes images of 71x71 and up, found 70x70; choose --image-size 71 or more, or another"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}"):
        check_image_size("Xception", 70)
