"""What a file says of itself, the evidence for it, and the signatures over both."""
