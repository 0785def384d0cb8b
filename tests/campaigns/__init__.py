"""Long searches for faults, each run by command; tests run a small sample of each."""
