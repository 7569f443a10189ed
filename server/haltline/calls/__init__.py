"""The steps of one call that `Broker.call` puts together, one file each, and what goes on beside the calls.

call (what is asked and what was admitted) · admission · dispatch · records · refusals · running · recovery · attempts
"""
