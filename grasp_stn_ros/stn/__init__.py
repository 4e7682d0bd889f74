"""The network: spatial transformers, the four stages, and its weights on disk."""
