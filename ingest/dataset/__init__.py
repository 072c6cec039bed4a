"""The dataset format on disk: records, metadata, manifest, TFDS files, integrity checks."""
