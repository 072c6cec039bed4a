"""A trained model and a dataset folder in, a report on what was right and wrong out."""
