"""The same model served by other frameworks, each as its own documentation teaches."""
