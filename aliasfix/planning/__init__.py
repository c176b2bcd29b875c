"""Plan what a conversion does to every operation that samples."""
