"""How classifiers lie in folders: the published layout of read classifiers, and that of transformers."""
