"""The names of the models, available without loading TensorFlow."""

import dataclasses
import difflib
from typing import Literal

from shardstream.ingest.common.errors import ConfigError

AugmentationName = Literal["default", "none", "randaugment"]
ScheduleName = Literal["cosine", "constant"]

FineTune = Literal["none", "last", "full"]

# Our own models, trained from scratch.
OWN_MODELS = ("small", "notebook")
# Chooses between the two models below.
AUTO = "auto"
AUTO_BACKBONE, AUTO_TRAINED = "lite0", "small"
# EfficientNet-Lite, with weights trained on ImageNet, and the height and width they were trained at.
BACKBONES = {"lite0": 224, "lite1": 240, "lite2": 260}
# Former names of models.
_FORMER_NAMES = {"seed": "notebook"}
# Minimum input size of a backbone: smaller images show it too little.
MIN_BACKBONE_SIZE = 32


@dataclasses.dataclass(frozen=True, slots=True)
class Application:
    """A model of `keras.applications`.

    Attributes:
        name: Name of the function that builds it, and of the model in our options.
        module: Module of `keras.applications`; its `preprocess_input` prepares the images.
        least_size: Minimum height and width of its input in pixels.
    """

    name: str
    module: str
    least_size: int = 32


def _family(module: str, *names: str, least_size: int = 32) -> dict[str, Application]:
    return {name: Application(name, module, least_size) for name in names}


# tests/train/test_applications.py compares it with Keras.
APPLICATIONS = {
    **_family("convnext", *(f"ConvNeXt{size}" for size in ("Tiny", "Small", "Base", "Large", "XLarge"))),
    **_family("densenet", *(f"DenseNet{depth}" for depth in (121, 169, 201))),
    **_family("efficientnet", *(f"EfficientNetB{i}" for i in range(8))),
    **_family(
        "efficientnet_v2", *(f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L"))
    ),
    **_family("inception_resnet_v2", "InceptionResNetV2", least_size=75),
    **_family("inception_v3", "InceptionV3", least_size=75),
    **_family("mobilenet", "MobileNet"),
    **_family("mobilenet_v2", "MobileNetV2"),
    **_family("mobilenet_v3", "MobileNetV3Small", "MobileNetV3Large"),
    **_family("nasnet", "NASNetMobile", "NASNetLarge"),
    **_family("resnet", *(f"ResNet{depth}" for depth in (50, 101, 152))),
    **_family("resnet_v2", *(f"ResNet{depth}V2" for depth in (50, 101, 152))),
    **_family("vgg16", "VGG16"),
    **_family("vgg19", "VGG19"),
    **_family("xception", "Xception", least_size=71),
}


# A batch of 32 images of this size is 1.6 GB.
MAX_IMAGE_SIZE = 4096


def find_model(name: str) -> str:
    """Returns the canonical spelling of a model's name.

    Raises:
        ConfigError: There is no model of that name.
    """
    known = {known.lower(): known for known in (AUTO, *OWN_MODELS, *BACKBONES, *APPLICATIONS)} | _FORMER_NAMES
    if found := known.get(name.lower()):
        return found
    close = difflib.get_close_matches(name.lower(), known, n=3)
    named = sorted({known[word] for word in close}, key=list(known.values()).index)  # Ours first.
    hint = f"did you mean {' or '.join(named)}?" if close else ""
    expected = "it has to be auto, small, lite0, notebook or a name of keras.applications"
    raise ConfigError(f"model {name!r} is not known; {hint or expected}")


def check_image_size(model: str, image_size: int) -> None:
    """Checks that images are not too small for a backbone or an application, nor too large for any model.

    Raises:
        ConfigError: They are.
    """
    application = APPLICATIONS.get(model)
    min_size = application.least_size if application else MIN_BACKBONE_SIZE if model in BACKBONES else 0
    if image_size < min_size:
        raise ConfigError(
            f"{model} takes images of {min_size}x{min_size} and up, found {image_size}x{image_size}; "
            f"choose --image-size {min_size} or more, or another --model"
        )
    if image_size > MAX_IMAGE_SIZE:
        raise ConfigError(
            f"images are of {image_size}x{image_size}, and models see at most {MAX_IMAGE_SIZE}x{MAX_IMAGE_SIZE}; "
            "choose a smaller --image-size"
        )


def backbone_size(model: str, image_size: int) -> int:
    """Returns the input height and width of a backbone for images of `image_size`.

    This is the size that the weights were trained at, if the images are larger or less than half of it. In between,
    images are not resized: a smaller `--image-size` is a faster model.
    """
    native = BACKBONES[model]
    return image_size if native // 2 <= image_size <= native else native
