"""Families of classifiers, each an `Explanandum`: Nucleotide Transformer v2 (nt.py), and others."""
