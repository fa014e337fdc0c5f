"""The report: the page, its charts, the comparison of two releases, and the model card."""
