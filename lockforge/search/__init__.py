"""Which cell is good on the source and poor elsewhere, judged by a predictor of zero-cost proxies
and by short trainings on the source.
"""
