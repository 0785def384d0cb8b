"""From features to similarities, post-processing and retrieval metrics."""
