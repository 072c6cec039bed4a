"""Where the time of a training goes: `shardstream-train doctor`."""
