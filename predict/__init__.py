"""Reports on the predictions of a trained model on a dataset folder."""
