"""The command `naign`: options in, calls of naign_ext and naign_bench, tables and JSON out."""
