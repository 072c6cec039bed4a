"""Output: tables, metrics.json, plots, the terminal, the viewer."""
