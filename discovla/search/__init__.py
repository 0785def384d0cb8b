"""Searching a user's own videos: an index on disk, queries on it, and a local page.

`sources` lists videos, `windows` reads their frames, `model` turns them into vectors, `store` keeps
these in two Lance tables (`vectors`), `build` drives it all; `query` and `web` read the index.
"""
