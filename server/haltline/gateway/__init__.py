"""The agents' face: what an LLM client sees of Haltline over MCP. Receives for the broker, lists, and tells of changes.

face (which method is what) · brokered (a request as the broker reads it) · streams and hearers (changes) · tasks
"""
