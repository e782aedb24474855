"""Are the masks good, and is every runtime and precision right?"""
