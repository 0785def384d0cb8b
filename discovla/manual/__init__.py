"""The parts of the manual that are made from the code: every setting, every command."""
