"""What one optimisation step uses: optimizer, schedules, averaging, perturbations."""
