"""The operators' commands: one file per noun, each a click command over the control client; nothing here decides."""
