"""Evidence: learning curves and what follows from them, intervals, manifests, signatures. No torch
and no scipy.
"""
