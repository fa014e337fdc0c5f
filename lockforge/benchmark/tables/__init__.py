"""Published benchmark tables. A locked door: only `benchmark` and tests open it."""
