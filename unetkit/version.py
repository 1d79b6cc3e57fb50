"""The version of unetkit, as it is installed; its rooms need not import the package for it."""

from importlib.metadata import version

__version__ = version("unetkit")
