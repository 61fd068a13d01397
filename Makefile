# `make lab` and `make test` set everything up in a fresh clone with Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# One thread a process: two notebooks run at a time on two cores and would slow each other down.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: lab test setup browser build bench site
.DELETE_ON_ERROR:

lab: setup
	$(BIN)/efflab lab

# Style; the package; each English notebook against its stored outputs; each Chinese notebook with
# other parameters and the exercises solved; each notebook in a browser.
test: setup browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST) notebooks/*.ipynb --nbval --nbval-current-env --nbval-cell-timeout 120 -n 2 --dist loadfile
	$(PYTEST) tests/publishing/test_probes.py tests/publishing/test_browser.py -n 2
	$(PYTEST) tests --ignore tests/publishing/test_probes.py --ignore tests/publishing/test_browser.py

setup: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("efflab needs Python 3.11 or newer and this is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) torch==2.13.0
	$(PIP) -r requirements.txt
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

# Chromium for the browser tests and for a build's pictures, with a font that has Chinese.
browser: setup
	@$(BIN)/efflab doctor --browser || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	&& apt-get -qq update && apt-get -qq install -y chromium fonts-noto-cjk >/dev/null; } || true

build: setup browser
	$(BIN)/efflab build

bench: setup
	$(BIN)/python -m efflab.experiments.attention_bench

site: setup
	$(BIN)/efflab site
