"""Trains a Keras model on a dataset folder and writes its run folder."""
