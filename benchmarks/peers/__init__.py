"""The same model served by other frameworks, each in the way of its own documentation."""
