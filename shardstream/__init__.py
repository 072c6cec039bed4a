"""Folders of images in, sharded TFRecords streamed through tf.data, a Keras model and a report out."""
