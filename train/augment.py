"""Changes to the pictures that do not change what they show: layers at the beginning of the model in training."""

import keras


def augmentation_layers(seed: int) -> list[keras.layers.Layer]:
    """Returns Keras layers for RGB pictures [batch, height, width, 3] with values from 0 to 255.

    They change each picture differently and are reproducible from `seed`. What they do holds for photos in
    general: nothing here knows of a certain data set. Pictures are mirrored only left to right, and the edges
    that moving and zooming out open are filled by reflection, as black ones would be a mark that no real
    picture has.
    """
    return [
        keras.layers.RandomFlip("horizontal", seed=seed),
        keras.layers.RandomTranslation(0.1, 0.1, fill_mode="reflect", seed=seed + 1),
        keras.layers.RandomZoom((-0.2, 0.1), fill_mode="reflect", seed=seed + 2),
        keras.layers.RandomBrightness(0.1, value_range=(0, 255), seed=seed + 3),
    ]
