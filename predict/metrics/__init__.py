"""Metrics and their intervals: classification, calibration, comparison, slices, the gate."""
