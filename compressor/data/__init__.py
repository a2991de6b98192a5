"""Datasets opened by name, and extra images; ``sources`` has one file for each dataset."""
