"""Everything before the broker runs: settings and their files, listeners, the first start, and the doctor."""
