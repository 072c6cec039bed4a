"""What knows nothing of datasets: errors, command line, terminal, atomic files, CPU limits, progress."""
