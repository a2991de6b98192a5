"""Datasets, one file each; each exports ``DATASET``."""
