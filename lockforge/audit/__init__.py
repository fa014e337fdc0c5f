"""Attack the lock as a thief would: every starting point gets the same images, the same budget and
the same rule of choice.
"""
