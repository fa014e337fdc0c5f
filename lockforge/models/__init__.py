"""Networks: built from an architecture, known by name, or read from what an owner gives."""
