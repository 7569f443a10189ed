"""What is known of each agent's ways, folded from recorded facts, and its place in the store.

Rules over it are the policy's (`policy/watch.py`); asking them is `rules/`.
"""
