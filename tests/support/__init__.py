"""What several test files share beside fixtures; import it as ``tests.support``."""
