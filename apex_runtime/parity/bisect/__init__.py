"""Which node is it? The first part of a candidate's graph that, given what the reference computed, gives something else."""
