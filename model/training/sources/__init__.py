"""Data sets that can be built from package registries; so far the default one, illustrations."""
