"""Check a conversion on the user's own model."""
