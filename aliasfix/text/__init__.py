"""How things are printed for people."""
