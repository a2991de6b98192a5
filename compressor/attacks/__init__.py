"""One file an attack: a search inside the ball for images that the model gets wrong."""
