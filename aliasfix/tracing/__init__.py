"""Record what a model computes, without changing it."""
