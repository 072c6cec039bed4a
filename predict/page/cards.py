"""A card of the page: an image with its prediction."""

from typing import Any

from shardstream.ingest.common.terminal import escape_control_chars
from shardstream.predict.findings.gallery import Shown


def make_card(shown: Shown, row: int) -> dict[str, Any]:
    """Returns the values of the card template; `row` identifies the image throughout the page."""
    prediction, record = shown.prediction, shown.prediction.record
    bars = list(zip(prediction.top_labels.tolist(), prediction.top_probabilities.tolist(), strict=True))
    if prediction.actual not in prediction.top_labels[:3]:
        # The actual class is always among the three shown: how far off was it?
        bars = [bar for bar in bars if bar[0] != prediction.actual]
        bars.insert(2, (prediction.actual, prediction.actual_probability))
    return {
        "row": row,
        "right": prediction.right,
        "actual": prediction.actual,
        "predicted": prediction.predicted,
        "probability": prediction.probability,
        "probabilities": bars,
        "loss": prediction.loss,
        "record": escape_control_chars(record.id),
        "source_path": escape_control_chars(record.source_path),
        "source_width": record.source_width,
        "source_height": record.source_height,
        "picture": shown.picture.data_uri,
    }
