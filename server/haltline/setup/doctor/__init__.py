"""Checks of one installation: the machine, the data folder, the configuration. Changes nothing, disturbs no broker.

Each check is a plain function that yields `Finding`s; `findings` runs them all in the order in which they are read.
"""
