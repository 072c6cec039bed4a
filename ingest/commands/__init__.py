"""The commands of shardstream-ingest: what they do and what they print."""
