"""Studies: trials as typed records, the storage that holds them, and warm starts from another study."""
