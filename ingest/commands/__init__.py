"""The commands of shardstream-ingest and their output."""
