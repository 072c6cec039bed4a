"""Execution engines: processes on this machine, or a Dask cluster."""
