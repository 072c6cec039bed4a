"""Builds datasets of sharded TFRecords from class folders of images. Never imports TensorFlow."""
