"""Decide what a conversion does to every operation that samples: rules, sites, the tail, places, prices, the plan."""
