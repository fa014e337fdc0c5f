"""Data sets: read, bounded, split by content, held apart by role, batched.

`images` reads a place, `split` decides who trains and who tests, `roles` holds source, auxiliary
and targets apart, `batches` feeds a device (needs torch), `builtin` is real data that needs no
download, `synthetic` has a known answer.
"""
