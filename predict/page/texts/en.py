"""The page in English."""

from collections.abc import Mapping

ENGLISH: Mapping[str, str] = {
    "language": "en",
    "title": "{run} on {dataset}, {split} split: prediction report",
    "eyebrow": "Prediction report",
    "headline": "Model {run} ({model}) on dataset {dataset}, {split} split",
    "jump": "Sections",
    "skip": "Skip to the images",
    # How the records were chosen.
    "selection_all": "all {all} images of the {split} split",
    "selection_batch": (
        "batch {batch} of {batches}: images {first} to {last} of the {all} of the {split} split"
    ),
    "selection_uniform": "a uniform sample of {count} of the {all} images of the {split} split, seed {seed}",
    "selection_stratified": (
        "a stratified sample of {count} of the {all} images of the {split} split, seed {seed}; each "
        "class is weighted by its size in the split"
    ),
    # The answer.
    "accuracy": "Accuracy",
    "interval": "95 % interval {low} to {high}",
    "interval_meaning": "95 % confidence interval for the accuracy on images like these.",
    "right_of_all": "{right} of {all} images correct, {wrong} incorrect",
    "chosen": "Predicted: {selection}.",
    "look_at_classes": "Classes with the lowest recall",
    "look_at_pairs": "Most confused",
    "class_missed": "{missed} of {support} missed",
    "pair_taken_for": "predicted as",
    "pair_count": "{count} images, {share} of the class",
    "pair_count_one": "1 image, {share} of the class",
    "no_errors": "Every image was predicted correctly.",
    "figures": "More figures",
    "balanced_accuracy": "Balanced accuracy",
    "balanced_accuracy_meaning": "mean recall of the classes tested",
    "macro_f1": "Macro F1",
    "macro_f1_meaning": "mean F1 of the classes tested",
    "top5_accuracy": "Top-5 accuracy",
    "top5_accuracy_meaning": "the class is among the five most probable ones",
    "mean_loss": "Mean loss",
    "mean_loss_meaning": "cross-entropy in nats; 0 is best",
    "ece": "Calibration error",
    "ece_meaning": "ECE, without what chance adds; 0 is best",
    "brier": "Brier score",
    "brier_meaning": "mean squared error of the probabilities, 0 to 2; 0 is best",
    # What to look at first.
    "advice": "What to look at first",
    "advice_labels": "{count} labels are probably wrong",
    "advice_labels_one": "1 label is probably wrong",
    "advice_labels_why_features": (
        "In tests with planted mistakes 9 of 10 labels that were listed like this were wrong. If so, move the "
        "image to the correct folder."
    ),
    "advice_labels_why_predictions": (
        "In tests with planted mistakes 6 to 9 of 10 labels that were listed like this were wrong. If so, move "
        "the image to the correct folder."
    ),
    "advice_contradictions": "{count} pairs are the same image with different labels",
    "advice_contradictions_one": "1 pair is the same image with different labels",
    "advice_contradictions_why": "One of the two labels is wrong, or the classes overlap.",
    "advice_leaks": "{count} pairs of the same image lie in different splits",
    "advice_leaks_one": "1 pair of the same image lies in different splits",
    "advice_leaks_why": "The model may have seen them in training, so the accuracy may be too high.",
    "advice_slice": "More errors than expected: {part}",
    "advice_slice_why": "Accuracy {accuracy}; images of the same classes have {expected}.",
    "advice_over": "The probabilities are too high",
    "advice_under": "The probabilities are too low",
    "advice_calibration_why": "They are {confidence} on average, and the accuracy is {accuracy}.",
    "advice_pair": "{actual} is predicted as {predicted}",
    "advice_pair_why": "{share} of all errors are of this kind.",
    "advice_odd": "{count} images are unlike the others of their class",
    "advice_odd_one": "1 image is unlike the others of its class",
    "advice_odd_why": "Blurred, dark, bright, of an unusual shape or of other content.",
    # The images.
    "gallery": "Images",
    "order_uniform": "Incorrect ones first, highest loss first.",
    "order_stratified": "Incorrect ones first, highest loss first.",
    "order_worst": "Highest loss first.",
    "order_confident-errors": "Only errors, the most confident first.",
    "order_borderline": "The closest decisions first.",
    "gallery_part": "{shown} of the {all} predicted images; predictions.csv has them all.",
    "gallery_bytes": "Each is the stored record itself, byte for byte, as the model read it.",
    "gallery_pixels": "They are drawn from the pixels that the model saw.",
    "gallery_empty": "This report was made without images.",
    "filter": "Filter the images",
    "filter_verdict": "Prediction",
    "filter_all": "All",
    "filter_wrong": "Incorrect",
    "filter_right": "Correct",
    "filter_actual": "Actual",
    "filter_predicted": "Predicted",
    "filter_any": "any class",
    "filter_from": "Probability from",
    "filter_to": "to",
    "filter_text": "Search",
    "filter_text_hint": "path or class",
    "filter_sort": "Sort by",
    "sort_given": "first to look at",
    "sort_loss": "highest loss",
    "sort_sure": "highest probability",
    "sort_unsure": "lowest probability",
    "sort_path": "path",
    "filter_reset": "Show all",
    "filter_status": "{count} of {all} shown",
    "filter_nothing": "No image on this page matches. Images outside this page may.",
    "keyboard": "Keys",
    "key_search": "search",
    "key_verdicts": "all, incorrect, correct",
    "key_cards": "next and previous image",
    "key_open": "large view",
    "key_leaf": "in the large view: next and previous",
    "key_close": "close it",
    "right": "correct",
    "wrong": "incorrect",
    "actual": "Actual",
    "predicted": "Predicted",
    "alternative": "{source}: actual {actual}, predicted {predicted}",
    "enlarge": "Enlarge",
    "large": "Large view",
    "close": "Close",
    "previous": "Previous",
    "next": "Next",
    "probabilities": "Probabilities",
    "loss": "loss {loss}",
    "source_size": "source size {width} × {height} pixels",
    # The classes.
    "classes": "Classes",
    "classes_meaning": (
        "Precision: the fraction of images predicted as a class that are of it. Recall: the fraction of "
        "images of a class that were predicted as it. F1: their harmonic mean. Support: the number of "
        "images of the class. Below each figure its 95 % confidence interval."
    ),
    "class": "Class",
    "class_search": "Search classes",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "support": "Support",
    "undefined": "not defined: there is no such image",
    # The confusion matrix.
    "matrix": "Confusion matrix",
    "matrix_meaning": (
        "Rows are actual classes, columns predicted ones; the shade is the fraction of the row. Choose a "
        "cell to see its images."
    ),
    "matrix_part": (
        "Of {all} classes these are the {shown} with the most errors; choose another to see it with "
        "those it is confused with."
    ),
    "matrix_part_right": "None is incorrect; {shown} of {all} classes are shown, and others can be chosen.",
    "matrix_corner": "actual ↓ predicted →",
    "matrix_cell": "{count}, {share} of the row: {actual} predicted as {predicted}",
    "matrix_show": "Cells show",
    "matrix_both": "both",
    "matrix_counts": "counts",
    "matrix_shares": "percentages",
    "matrix_class": "Around the class",
    "matrix_most": "most errors",
    "pairs": "Confused pairs",
    "pairs_part": "The {shown} most frequent of {all}; metrics.json has them all.",
    "pairs_search": "Search pairs",
    "count": "Count",
    "share_of_class": "Fraction of the class",
    # Calibration.
    "calibration": "Calibration",
    "calibration_meaning": "Of images with a probability of 0.8, eight of ten should be correct.",
    "reliability": "Reliability",
    "reliability_meaning": (
        "Below the diagonal the model is overconfident. Bars are 95 % confidence intervals."
    ),
    "reliability_summary": (
        "Reliability curve: calibration error {ece}, mean probability {confidence}, accuracy {accuracy}."
    ),
    "histogram": "Distribution of probabilities",
    "histogram_meaning": (
        "The number of images by the probability of the predicted class, correct and incorrect."
    ),
    "histogram_summary": "Histogram of the probability of the predicted class over {all} images.",
    "coverage": "Selective prediction",
    "coverage_meaning": "The accuracy if only the most confident predictions are used.",
    "coverage_summary": "Accuracy over coverage: {accuracy} of all, {half} of the more confident half.",
    "axis_probability": "probability",
    "axis_accuracy": "accuracy",
    "axis_pictures": "images",
    "axis_coverage": "fraction used",
    "table": "As a table",
    "threshold": "Probability at least",
    "number_right": "Correct",
    "number_wrong": "Incorrect",
    # Where errors gather.
    "slices": "Where errors concentrate",
    "slices_meaning": (
        "Each group of images against others of the same classes. Only differences beyond chance are "
        "marked, all {count} comparisons taken together (Mantel-Haenszel, Holm, 5 %)."
    ),
    "slices_none": "No group of images has significantly more errors than others of the same classes.",
    "slices_untested": "There are too few images to compare groups of them.",
    "slices_all": "All groups",
    "part": "Group",
    "pictures": "Images",
    "expected": "Same classes",
    "chance": "p",
    "part_range": "{low} to {high}",
    "part_size": "source size {values} megapixels",
    "part_aspect": "width : height {values}",
    "part_brightness": "brightness {values} of 255",
    "part_sharpness": "sharpness {values}",
    "part_folder": "folder {folder}",
    "more_errors": "more errors",
    "fewer_errors": "fewer errors",
    # Where it comes from.
    "provenance": "About this report",
    "provenance_command": "Command",
    "provenance_created": "Created",
    "provenance_dataset": "Dataset",
    "provenance_fingerprint": "Dataset fingerprint",
    "provenance_trained_on": "Model trained on",
    "provenance_same": "the same dataset",
    "provenance_other": "another dataset, {fingerprint}",
    "provenance_model": "Model",
    "provenance_model_facts": (
        "{model}: {parameters} parameters, trained in {precision}, {size} × {size}, {resize}"
    ),
    "provenance_weights": "Pretrained weights",
    "weights_trained_on": "trained on {value}",
    "weights_license": "license {value}",
    "weights_sha256": "SHA-256 {value}",
    "weights_fine_tune_none": "not fine-tuned",
    "weights_fine_tune_last": "the last third of the network fine-tuned",
    "weights_fine_tune_full": "the whole network fine-tuned",
    "provenance_model_sha256": "Model file (SHA-256)",
    "provenance_versions": "Versions, predicting",
    "provenance_versions_training": "Versions, training",
    "provenance_config": "Training configuration",
    # Loose photos.
    "photos_title": "Photos predicted by {run}: {count}",
    "photos_headline": "Photos predicted by model {run} ({model}): {count}",
    "photos_meaning": "The labels of these photos are unknown: they are grouped by predicted class.",
    "photos_group": "Photos: {count}, {share} of all; shown: {shown}, the least confident first.",
    "photos_rejected": "Rejected",
    "photos_rejected_meaning": (
        "Files that are not usable images: {count}; {shown} are listed here, predictions.csv has all."
    ),
    # Other models.
    "compare": "Other models",
    "compare_meaning": (
        "The same records through each model. p is the probability of a difference at least as large if "
        "both models were equally good ({test}), adjusted for the number of models (Holm). κ is "
        "agreement beyond chance; ms is the time of the model for an image."
    ),
    "compare_model": "Model",
    "compare_first": "this model",
    "compare_difference": "Difference",
    "compare_agreement": "Agreement",
    "compare_parameters": "Parameters",
    "compare_where": "Where",
    "compare_fixes": "Fixes",
    "compare_regressions": "Regressions",
    "compare_fixes_title": "Fixes: only the other model is correct",
    "compare_regressions_title": "Regressions: only this model is correct",
    "compare_shown": "{shown} of {all}, the most confident first",
    "compare_better": "{name} is better: its accuracy is {difference} higher ({low} to {high}).",
    "compare_worse": "{name} is worse: its accuracy is {difference} lower ({low} to {high}).",
    "compare_no_difference": "No significant difference: the accuracy of {name} differs by {low} to {high}.",
    "untested": "Not tested, as no image of them was predicted: {names}.",
    "untested_more": "{names} and {count} more",
    "advice_trained": "The model was trained on these images",
    "advice_trained_why": "The accuracy on new images is lower; predict a split that was held out.",
    "matrix_weighted": (
        "Counts are of the images drawn: about the same number of each class, and all of a class with fewer."
    ),
    "compare_mcnemar": "McNemar, exact",
    "compare_weighted": "weighted difference, as the classes have different weights",
    "compare_parts": (
        "Classes and groups, the largest differences first. Marked are those beyond chance, all of them "
        "taken together (Holm, 5 %)."
    ),
    "compare_stands_out": "significant",
    "compare_counts": "It alone is correct on {fixes} images, this model alone on {regressions}.",
}
