"""The kit for a machine with an NVIDIA GPU; see __main__.py."""
