"""What a study holds: trials as typed records, the storage that keeps them, and a warm start from another study."""
