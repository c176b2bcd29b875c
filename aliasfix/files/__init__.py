"""Checkpoints in, converted files out."""
