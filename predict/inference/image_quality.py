"""Quality measures of an image that do not depend on its content: brightness and sharpness."""

import numpy as np


def measure(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the brightness and the sharpness of images, float32 [len(images)] each.

    Brightness is the mean of the gray image, 0 to 255. Sharpness is the standard deviation of its Laplacian, which blur
    reduces (Pech-Pacheco et al. 2000). 0.25 ms for 300x300 pixels.

    Args:
        images: uint8 [num_images, height, width, 3], RGB.
    """
    import cv2

    brightness, sharpness = np.empty(len(images), np.float32), np.empty(len(images), np.float32)
    for i, image in enumerate(images):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        brightness[i] = cv2.mean(grey)[0]
        sharpness[i] = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))[1][0, 0]
    return brightness, sharpness
