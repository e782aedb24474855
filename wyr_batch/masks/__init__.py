"""Masks files, read back: what `report`, `view` and `convert` stand on."""
