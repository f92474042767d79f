"""What holds for all tests."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Features and exported networks of tests stay out of the cache of the user."""
    before = os.environ.get("LONGTAIL_CACHE")
    os.environ["LONGTAIL_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["LONGTAIL_CACHE"]
    if before is not None:
        os.environ["LONGTAIL_CACHE"] = before
