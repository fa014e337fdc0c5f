"""Embed: what a task looks like to a fixed probe network (Task2Vec)."""
