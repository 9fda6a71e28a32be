"""The multi-label target: any number of K labels is right, also none; scores are independent."""
