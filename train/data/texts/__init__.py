"""Labelled tables of texts and proteins."""
