"""A model with its claim and evidence: made, sealed, measured."""
