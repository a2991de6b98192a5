"""The one training loop, and what feeds it: batches, steps, the teacher's soft labels."""
