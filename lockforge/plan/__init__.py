"""`lockforge plan`: what `protect` would do, how long that takes here and how much memory and disk,
and what is done already.

_walk.py: a dry run of `pipeline.protect`, which finds the calls of stages that are finished and
stands in for the others. speeds.py: seconds of counted work. _calibrate.py: measures this machine
for some seconds and stores the result. estimate.py: time, memory and disk of what is left.
`plan` is no stage: nothing of it goes into a release.
"""
