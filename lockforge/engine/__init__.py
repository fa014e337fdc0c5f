"""The one training loop, its stacks, and what measures their outcome: fit.py, fold.py, stack.py, resume.py, schedule.py, evaluate.py."""
