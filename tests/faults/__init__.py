"""Faults made on purpose: damaged files, odd arguments, kills and full disks, each of which naign must meet in words."""
