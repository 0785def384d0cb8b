"""A rehearsal of the real path: each dataset's own file formats, names and full-size classes.

The demo world has its own reader and tiny models; this runs what a user of the real data runs, on
a self-made cut: annotation files of the original schema, rendered clips under the original kind of
names (some broken, some missing), a random ViT-B/32 in the layout of OpenAI's archive and a random
tiny LLaVA-NeXT saved to disk. The numbers it gives mean nothing; that it gives them does.

One file per dataset holds its schema and names; `cut.py` and `films.py` hold what they share.
"""
