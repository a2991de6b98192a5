"""Networks as classifiers, their modes and their costs; ``families`` has one file for each family."""
