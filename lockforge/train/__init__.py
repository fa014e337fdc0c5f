"""Train: an architecture and the owner's images become a checkpoint."""
