"""A dataset folder in, a trained Keras model and its run folder out."""
