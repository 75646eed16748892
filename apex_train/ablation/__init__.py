"""Ablation studies: which choice of a training helps, with seeds in pairs and a correction for many comparisons."""
