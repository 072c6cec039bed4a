"""From a source folder to shards: scan, map tasks, catalog, splits, shards, staging."""
