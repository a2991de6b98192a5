"""The teacher, its soft labels, and their cache on disk."""
