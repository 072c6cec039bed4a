"""Records in, predictions out: selection, reading, the model, the table of predictions."""
