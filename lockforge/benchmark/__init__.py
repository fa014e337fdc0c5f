"""Published tables: what a search would have found, beside the floor, chance and baselines. The
only room that opens `benchmark.tables`.
"""
