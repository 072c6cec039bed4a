"""The sentences about the data of a report in English."""

ENGLISH_FINDINGS: dict[str, str] = {
    "issues": "Data to check",
    "labels": "Labels to check",
    "labels_meaning_features": (
        "Labels that are more probably wrong than correct, the most probable first. Each of {count} images "
        "of all splits was predicted from features of EfficientNet-Lite0 by a linear classifier that was not "
        "fitted to it (5-fold cross-validation). The percentage is that of the class it looks like, not the order."
    ),
    "labels_meaning_predictions": (
        "Labels that are more probably wrong than correct, given how well the model's probabilities fit "
        "all labels; the most probable first. In tests with planted mistakes 6 to 9 of 10 of them were "
        "wrong. Means little for images that the model was trained on."
    ),
    "labels_none": "No image is predicted incorrectly, so no label is doubted.",
    "list_part": "The first {shown} of {all}; findings.csv has them all.",
    "label_says": "label",
    "model_says": "predicted",
    "label_suggested": "looks like",
    "odd": "Unlike the others of their class",
    "odd_meaning": (
        "More than 3 robust standard deviations from the class median (content, by features: 4.5), the farthest "
        "of each kind first. What a class or the whole often has, such as a second shape or camera, is not listed."
    ),
    "odd_none": (
        "No image is far more blurred, darker, brighter, otherwise shaped or of other content than its class."
    ),
    "odd_none_but_content": "No image is far more blurred, darker, brighter or otherwise shaped than its class.",
    "odd_blurred": "blurred",
    "odd_dark": "dark",
    "odd_bright": "bright",
    "odd_shape": "unusual shape",
    "odd_content": "other content",
    "duplicates": "Duplicates",
    "duplicates_meaning": (
        "Pairs that are the same image, compressed, scaled or cropped anew, or consecutive shots of one scene: "
        "those of this split, and of the whole dataset those of different labels. Perceptual hashes find them; "
        "fine details confirm them."
    ),
    "duplicates_more": "{count} more pairs of similar hashes, the least similar ones, were not compared.",
    "duplicates_unknown": "The dataset has no manifest that can be read, so duplicates are not known.",
    "leaks": "In another split",
    "leaks_none": "No image of this split was found in another split, too.",
    "repeats": "Twice in this split",
    "contradictions": "The same image with another label",
    "contradictions_none": "No image was found with a second label.",
    "conflicts": "{count} files were left out at ingest because the very same image is in two classes.",
    "neighbors": "Most similar training images",
    "neighbors_meaning": (
        "By features of EfficientNet-Lite0; 1 is identical. If one of them has a wrong label, fix it there: the "
        "model learned from it."
    ),
    "labels_errors": (
        "The predictions do not tell wrong labels from the model's own errors, so no label is called "
        "wrong. These are its most confident errors; usually the label is correct."
    ),
    "same_image": "same image",
}
