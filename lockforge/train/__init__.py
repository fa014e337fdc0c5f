"""Train: an architecture and the owner's pictures become a checkpoint."""
