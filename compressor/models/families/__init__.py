"""Architectures, one file a family; each exports ``FAMILY``."""
