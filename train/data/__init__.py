"""Labelled sequences: where they come from, and batches of them."""
