"""Speed, shown and never gated: each command times both sides in one run and checks them equal."""
