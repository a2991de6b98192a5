"""The one training loop, the recipe, the run folder and the teacher."""
