"""The names of the package itself."""

import ast
import importlib
import importlib.metadata
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement

import longtail

ROOT = Path(__file__).parents[1]


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


def test_sub_packages_answer_after_one_import() -> None:
    code = "import longtail, sys; assert 'torch' not in sys.modules; " + "; ".join(
        f"longtail.{name}" for name in longtail.__all__
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_imported_package_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        declared += extra
    names = {re.match(r"[\w.-]+", line)[0].lower() for line in declared}  # type: ignore[index]
    packages = importlib.metadata.packages_distributions()
    imported = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    for name in sorted(imported - sys.stdlib_module_names - {"longtail", "triton"}):
        distributions = {d.lower().replace("_", "-") for d in packages.get(name, [name])}
        assert distributions & names, f"{name} is imported and not declared"


def test_citation_and_changelog_are_of_the_version_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == project["version"]
    if ".dev" not in project["version"]:
        section = f"## [{citation['version']}] - {citation['date-released']}\n"
        assert section in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_extra_all_has_every_extra_of_a_user() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    (everything,) = extras.pop("all")
    named = set(re.findall(r"\[(.*)\]", everything)[0].split(","))
    assert named == set(extras) - {"dev", "docs"}


def required(line: str) -> set[str]:
    """The packages that a requirement brings, with those of its extras, one level deep."""
    wanted = Requirement(line)
    extras, found = [*wanted.extras, ""], {wanted.name}
    for other in map(Requirement, importlib.metadata.requires(wanted.name) or ()):
        if any(other.marker is None or other.marker.evaluate({"extra": e}) for e in extras):
            found.add(other.name)
    return found


def test_the_extra_integrations_has_what_the_trainers_need() -> None:
    """`transformers` alone has no Trainer: it needs accelerate."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["optional-dependencies"]["integrations"]
    found = set().union(*map(required, lines))
    assert {"accelerate", "datasets", "lightning", "torchmetrics", "transformers"} <= found


def test_files_of_a_public_project_can_be_read() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    for path in [*(ROOT / ".github").rglob("*.yml"), ROOT / "mkdocs.yml"]:
        assert yaml.safe_load(path.read_text(encoding="utf-8")), path
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert path.stem == "config" or {"name", "description", "body"} <= set(form)
