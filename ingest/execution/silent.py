"""Silences stderr of the process that imports this module: the fork server, and so all workers.

A worker that is starting while its command exits would print a traceback about missing shared resources.
"""

from shardstream.ingest.execution.worker import silence_decoders

silence_decoders()
