"""What a data set holds and what is wrong with it, before a training spends hours on it."""
