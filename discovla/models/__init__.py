"""CLIP walked by our own forward pass, with hook points for methods."""
