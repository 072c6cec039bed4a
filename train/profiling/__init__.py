"""Finds the bottleneck of a training: `shardstream-train doctor`."""
