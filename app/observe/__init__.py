"""What is measured, traced and logged; called by the others."""
