"""The configuration of a run: its fields, presets, and where their values come from."""
