"""One page with all that a dataset's targets gave: everything inside the file, nothing fetched."""
