"""`lockforge plan`: what `protect` would do, how long that takes here and how much memory and disk,
and what is done already.

walk.py (the sentence of `pipeline` asked by one who only looks), speeds.py (seconds of counted
work), calibrate.py (some seconds of measuring, kept), memory.py. It is no stage: nothing of it goes
into a release.
"""
