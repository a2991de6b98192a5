"""The words that every part of the engine speaks: types, errors, contracts, registry, reporting."""
