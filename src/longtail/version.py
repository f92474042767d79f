"""The version of the package."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("longtail")
except PackageNotFoundError:  # a source tree on the path that is not installed
    VERSION = "0+unknown"
