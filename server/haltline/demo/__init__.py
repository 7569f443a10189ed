"""The demonstration: two upstreams that keep real state and real books, and a story played against a real broker.

`payments` and `tasks` are ordinary MCP servers that know nothing of Haltline. `stage` sets the processes up and takes
them down, `story` plays the scenes in order, `printing` tells them.
"""
