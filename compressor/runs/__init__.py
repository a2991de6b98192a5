"""What a run is and where it lies: recipe, choices, run folder."""
