"""Pure functions on tensors and counts: ascent, losses, statistics, augmentation, randomness."""
