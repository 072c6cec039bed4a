"""Category folders of photos in, sharded TFRecords out. Never imports TensorFlow."""
