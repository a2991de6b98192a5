"""The whole way, from a teacher's file to a verdict on the student's: for one run, or for a grid of runs."""
