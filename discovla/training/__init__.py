"""Training of one run: optimiser and schedule, resumable loop, checkpoints."""
