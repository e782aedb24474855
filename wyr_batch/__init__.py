"""wyr-batch: which part of each sequencing read made a classifier's call."""

__version__ = "0.1.0"
