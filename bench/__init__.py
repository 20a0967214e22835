"""Benchmarks of naign's operators beside the other ways to compute the same.

    run_knn (imle_knn.py)     exact nearest neighbours, every answer judged by a float64 oracle (oracle.py)
    run_loss (fused_loss.py)  the fused loss, forward and backward, beside a plain copy
    show (tables.py), draw (plot.py), save and load (harness.py): results on the terminal, as figures, as JSON

`naign bench --help` runs them; a new peer is one function and one line in `knn_peers.PEERS`, a new
workload one line in `knn_workloads`.
"""
