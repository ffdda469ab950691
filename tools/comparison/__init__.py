"""Compares the places in which gradfs-train can keep a model; tools/compare starts it.

plan says what is run, store keeps what was run, schedule runs what is missing, training and cluster do one run.
From the store, summary makes results; aims judges them; tables and plots show them.
"""
