"""How far the annotations of a data set can be believed, by a model's opinion of each."""
