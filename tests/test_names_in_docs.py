"""Names of the package and links in the pages exist; the first examples run."""

import ast
import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import longtail

ROOT = Path(__file__).parents[1]
NOT_NOW = ("CHANGELOG.md", "EXPERIMENTS.md")  # they name what was there at their time
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def resolve(name: str) -> Any:
    """The object of a dotted name; AttributeError or ModuleNotFoundError without one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in NOT_NOW], ids=relative)
@pytest.mark.filterwarnings("ignore")
def test_names_of_the_package_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in sorted(set(re.findall(r"[`:] ?(longtail(?:\.\w+)+)", text))):
        resolve(name)


def test_the_reference_has_everything_public() -> None:
    shown = set()
    for page in (ROOT / "docs/api").glob("*.md"):
        shown |= set(re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.MULTILINE))
    packages = [getattr(longtail, name) for name in longtail.__all__]
    packages = [found for found in packages if hasattr(found, "__path__")]
    assert len(packages) > 8
    for package in packages:
        assert package.__name__ in shown
        for name in package.__all__:
            # mkdocstrings takes a function for the module of the same name.
            module = f"{package.__name__}.{name}"
            if importlib.util.find_spec(module) and module not in shown:
                assert f"{module}.{name}" in shown, module


def used_names(code: str) -> set[str]:
    """Dotted names of the package that a program imports or looks up."""
    nodes, names, used = [*ast.walk(ast.parse(code))], {"longtail": "longtail"}, set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("longtail."):
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    for node in nodes:
        if isinstance(node, ast.Attribute):
            root, _, rest = ast.unparse(node).partition(".")
            if root in names and re.fullmatch(r"[\w.]+", rest):
                used.add(f"{names[root]}.{rest}")
    return used | {*names.values()}


def resolve_all(code: str) -> None:
    for name in sorted(used_names(code)):
        resolve(name)


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in NOT_NOW], ids=relative)
@pytest.mark.filterwarnings("ignore")
def test_names_in_programs_exist(page: Path) -> None:
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    resolve_all("\n".join(block for block in blocks if not block.startswith(">>>")))


@pytest.mark.parametrize(
    "code",
    [
        "from longtail.losses import NoLoss",
        "from longtail import losses as l\nl.NoLoss(prior)",
        "import longtail\nlongtail.losses.NoLoss(prior).backward()",
    ],
)
def test_a_wrong_name_is_found(code: str) -> None:
    with pytest.raises(AttributeError):
        resolve_all(code)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_linked_files_exist(page: Path) -> None:
    """`make docs` checks links to pages, too, but not those of README and CONTRIBUTING."""
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        made = page.is_relative_to(ROOT / "docs") and target.startswith("gallery/")
        if not target.startswith(("http", "mailto")) and not made:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/faq.md", "docs/data.md"])
def test_examples_of_the_first_pages_run(page: str) -> None:
    run_blocks(page, {})


def test_examples_on_priors_run() -> None:
    torch.manual_seed(0)
    labels = torch.arange(3).repeat_interleave(torch.tensor([300, 90, 60]))
    logits = torch.randn(450, 3) + 3 * torch.nn.functional.one_hot(labels, 3)
    names = {"train_labels": labels, "logits": logits, "network": torch.nn.Linear(3, 3)}
    names |= {"val_logits": logits, "val_labels": labels, "new_logits": logits[200:]}
    names |= {"test_logits": logits, "test_labels": labels, "stream": logits.split(50)}
    uniform = torch.full((3,), 1 / 3)
    found = run_blocks("docs/shift.md", names | {"monday_prior": uniform, "other": uniform})
    torch.testing.assert_close(found["tracker"].prior.sum().item(), 1.0)


def run_blocks(page: str, names: dict[str, Any]) -> dict[str, Any]:
    blocks = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    return names
