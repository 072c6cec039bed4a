"""The run folder: checkpoints, resume, model files, status, history."""
