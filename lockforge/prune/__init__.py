"""Prune: the weight lock."""
