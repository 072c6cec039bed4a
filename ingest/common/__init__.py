"""Code that is independent of datasets: errors, command line, terminal, atomic files, CPU limits, progress."""
