"""Training methods, one file each; each exports ``METHOD``."""
