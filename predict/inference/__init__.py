"""Inference: selection of records, reading, the model, the table of predictions."""
