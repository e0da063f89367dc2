"""Tables and figures from metrics: no torch, so that they can be rebuilt anywhere."""
