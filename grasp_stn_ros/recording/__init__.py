"""MCAP files: what the node saw and found, written, read, and detected again."""
