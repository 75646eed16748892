"""Images and objects that a model gets wrong, or is unsure of: what is worth learning from again."""
