"""The one training loop of the project and what measures its outcome.

fit.py, stack.py, fold.py, resume.py, schedule.py, evaluate.py, device.py, sharpness.py.
"""
