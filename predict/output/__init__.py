"""Files and screens: tables, metrics.json, plots, the terminal, the viewer."""
