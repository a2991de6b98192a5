"""One file a check: a sign that the attacks measured less than there is."""
