"""A trained run outside the workflow: loaded in three lines, exported to a folder."""
