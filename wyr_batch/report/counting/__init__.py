"""Rows of masks files, counted in one pass over them: data.py makes JSON of it."""
