"""What the documentation shows is what works: its commands, links and made parts."""
