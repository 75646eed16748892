"""Labels that a model gives to images nobody has annotated, and how far they can be believed."""
