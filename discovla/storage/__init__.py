"""How anything gets on disk and stays sound: atomic writes, checksums, owners, leases."""
