PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: train test test-slow check docs wheel clean

# Trains GML (teacher, then student) and plain cross-entropy on the built-in digits.
train: $(READY)
	$(BIN)/longtail train digits-lt --method ce --out runs/digits-ce --resume
	$(BIN)/longtail train digits-lt --method gml --out runs/digits-gml --resume
	$(BIN)/longtail report runs/digits-gml runs/digits-ce --out runs/digits.html

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# Faults at random moments, and whatever else takes minutes.
test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation as a site, in build/site.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --site-dir build/site

# Builds the source archive, the wheel from it, and tries the wheel with its dependencies alone.
wheel: $(READY)
	rm -rf build/fresh build/run build/digits build/*.whl build/*.tar.gz
	$(BIN)/uv build --quiet --out-dir build
	$(PYTHON) -m venv build/fresh
	$(BIN)/uv pip install --quiet --python build/fresh/bin/python --constraint requirements.lock build/*.whl
	cd build && fresh/bin/longtail --version && fresh/bin/longtail list
	cd build && fresh/bin/longtail train digits-lt --epochs 1 --out run
	build/fresh/bin/python bench/picture_folders.py digits-lt build/digits
	cd build && fresh/bin/longtail advise digits

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

clean:
	rm -rf .venv build runs
