"""One run: its options, its threads, what it counts."""
