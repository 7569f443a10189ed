"""Rules over an agent's ways, asked and acted on inside the transaction of what they are asked about (R27).

What they are is the policy's (`policy/watch*.py`), what they read `signals/`. Asked about a call before it goes by
`calls/watching.py`, about one that ended here, of history and time by `calls/watcher.py`.
"""
