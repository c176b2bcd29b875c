"""Check a conversion on the user's model."""
