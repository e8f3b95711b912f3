"""From source files to shards with Ray Data: read, clean, select, render, tokenise, pack.

`pipeline.prepare` does it, `found` looks for what is there. Nothing is imported here: who looks at
a folder needs no Arrow.
"""
