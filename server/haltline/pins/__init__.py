"""Pinned tool definitions: what was approved, what an upstream shows now, and what in it would deceive a reader.

    table        the rows: one for each tool of each upstream that was ever seen
    characters   hidden ones, and how they are shown      lookalikes   names that read alike      diff   what changed

The path of a listing through these is `quarantine`'s.
"""
