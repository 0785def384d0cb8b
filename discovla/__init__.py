"""DiscoVLA reproduced: parameter-efficient text-video retrieval."""
