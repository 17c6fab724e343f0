"""From a model's name to its weights in memory. Refuses to know families: what a picture takes is told to it."""
