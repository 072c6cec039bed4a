"""The loop: steps of training, evaluation, metrics."""
