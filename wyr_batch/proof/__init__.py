"""Whether a way to compute a bundle gives what float32 gives."""
