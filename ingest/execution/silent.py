"""Takes stderr from the process that imports this: the server that workers are forked from, and so from them.

A worker that was just being started when its command ended would show that it cannot find what they shared.
"""

from shardstream.ingest.execution.worker import silence_decoders

silence_decoders()
