"""The stages of preparing.

`sequence` has them in their order, `stage` runs one on Ray Data; what each does is in the module
that is called as its files are.
"""
