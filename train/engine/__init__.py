"""The training engine: training steps, evaluation, metrics."""
