"""LockForge: lock an image model to its own task, then prove what a thief would still get out of it."""
