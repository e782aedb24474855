"""From reads to batches of tokens."""
