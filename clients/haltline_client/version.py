"""The version that the client reports. A test holds it equal to pyproject.toml.

It is written here, not read from the installed package, because `importlib.metadata` costs more than a whole command.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
