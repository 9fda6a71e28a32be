"""Entries of the tables that exist only in tests: they prove that nothing else names an entry."""
