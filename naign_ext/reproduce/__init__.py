"""The claims of arXiv 2511.02614 as commands: train, compare with IGN and with trivial baselines, judge, draw.

Above training and metrics, beside the report of a single run; `naign reproduce` is its only user.
"""
