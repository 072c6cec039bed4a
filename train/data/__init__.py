"""From a dataset folder to batches: index, order, pipeline, caches, corrupt records, TFDS folders."""
