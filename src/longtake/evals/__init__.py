"""How good a model is: what was asked for against what is seen, over time, and against the rendered truth."""
