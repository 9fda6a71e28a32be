"""The single-label target: exactly one of K labels is right; scores sum to 1."""
