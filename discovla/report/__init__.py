"""Rows and their metrics → tables, figures and a summary that people read."""
