"""What several commands do between their options and their output."""
