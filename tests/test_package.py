"""The names of the package itself."""

import importlib
import pkgutil
import subprocess
import sys

import longtail


def test_names_are_the_same_after_every_module_was_imported() -> None:
    before = {name: getattr(longtail, name) for name in longtail.__all__}
    for module in pkgutil.iter_modules(longtail.__path__):
        importlib.import_module(f"longtail.{module.name}")
    assert {name: getattr(longtail, name) for name in longtail.__all__} == before
    assert set(longtail.__all__) <= set(dir(longtail))
    assert not hasattr(longtail, "no_such_name")


def test_the_command_line_does_not_wait_for_pytorch() -> None:
    code = "import sys, longtail.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
