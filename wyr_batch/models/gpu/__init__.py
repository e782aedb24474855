"""Nucleotide Transformers in the form that a GPU computes fastest."""
