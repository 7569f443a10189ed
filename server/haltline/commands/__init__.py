"""The commands that run on the broker's own machine: one file per noun, each imported only when it runs."""
