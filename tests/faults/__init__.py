"""Faults made on purpose: damaged files, odd arguments, kills and full disks. naign must meet each in words."""
