"""The one training loop of the project, and what measures its outcome: fit.py, resume.py, schedule.py, evaluate.py, device.py."""
