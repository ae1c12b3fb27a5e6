# `make demo` and `make test` need only git, make and Python 3.11-3.13. Everything else is installed
# into .venv. Choose the interpreter with `make test PYTHON=/path/to/python3.12`.

PYTHON ?= python3.13 python3.12 python3.11 python3 python
# The extras of pyproject.toml to install with the package. `parity` adds PyTorch and the other
# independent implementations that tests compare with. Without it those tests are skipped.
EXTRAS ?= test,ko,wmt
VENV := .venv

export TF_CPP_MIN_LOG_LEVEL ?= 2

# "PATH VERSION" of the first candidate with a supported version; empty if there is none.
FOUND := $(shell for python in $(PYTHON); do "$$python" -c 'import sys; v = sys.version_info[:2]; \
	print(sys.executable, "%d.%d" % v) if (3, 11) <= v <= (3, 13) else sys.exit(1)' 2>/dev/null && break; done)
PYTHON_PATH := $(word 1,$(FOUND))
PYTHON_VERSION := $(word 2,$(FOUND))

# Two stamps: another Python version makes a new environment. Changed requirements or extras are
# installed into the old one.
COMMA := ,
CREATED := $(VENV)/.created-$(PYTHON_VERSION)
INSTALLED := $(VENV)/.installed-$(subst $(COMMA),-,$(EXTRAS))
RUN := $(VENV)/bin/python
PYTEST := $(RUN) -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all campaign lint format docs pictures notebook clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

$(CREATED):
	$(if $(FOUND),,$(error Python 3.11, 3.12 or 3.13 is missing (tried: $(PYTHON)): install one or name it, make PYTHON=/path/to/python3))
	@$(PYTHON_PATH) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON_PATH) cannot make\
	 virtual environments: install its venv package (Debian, Ubuntu: apt install python$(PYTHON_VERSION)-venv)\
	 or name another Python, make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON_PATH) -m venv --clear $(VENV)
	@touch $@

$(INSTALLED): $(CREATED) pyproject.toml constraints.txt
	@echo "installing the requirements into $(VENV) (a few minutes the first time)"
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

setup: $(INSTALLED)  ## make .venv with everything that the tests need

demo: setup  ## Korean to English on the bundled corpus: train, test and translate, in minutes
	TF_CPP_MIN_LOG_LEVEL=3 $(RUN) recipes/translate_ko_en.py

# Code that XLA compiles for these tests runs for milliseconds. Optimizing it would take more time
# than it saves: half of the processor time on JAX. `make test-all` compiles as users do.
test: export XLA_FLAGS ?= --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false \
	--xla_cpu_parallel_codegen_split_count=1 --xla_llvm_disable_expensive_passes=true

# What JAX compiled is kept. Run again, two files of tests took a quarter of the time on JAX.
test: export JAX_COMPILATION_CACHE_DIR ?= $(abspath $(VENV))/cache/jax
test: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0
test: export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES ?= -1

# Two processes, because one keeps about one core busy. The tests of a file stay together, and the
# longest files start first (tests/conftest.py), so that no process is left with them at the end.
# TensorFlow runs them in two parts, because it keeps all that was compiled in memory. A process
# that is killed, as for want of memory, is not replaced.
test: lint  ## fast tier: lint, all tests on TensorFlow, the backend-independent ones on JAX
	@status=0; for part in tensorflow:[a-e] tensorflow:[f-z] jax:; do \
		KERAS_BACKEND=$${part%:*} $(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 \
			-m "not slow" tests/test_$${part#*:}*.py || status=1; \
	done; exit $$status

test-all: lint  ## everything, slow tests included, on every installed backend
	@for backend in tensorflow jax torch; do \
		if $(RUN) -c "import importlib.util as u, sys; sys.exit(u.find_spec('$$backend') is None)"; then \
			echo "== backend $$backend"; KERAS_BACKEND=$$backend $(PYTEST) || exit 1; \
		else \
			echo "== backend $$backend is not installed and is skipped"; \
		fi; \
	done

MINUTES ?= 30

campaign: setup  ## kills trainings and damages files of runs for MINUTES (30), and counts failures
	cd tests && PYTHONPATH=. ../$(RUN) -m campaign --minutes $(MINUTES)

lint: setup  ## ruff check, ruff format --check and mypy
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: setup  ## repair what ruff can repair
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

docs:  ## build the documentation, a site that opens without a network: site/index.html
	@$(MAKE) --no-print-directory setup EXTRAS=docs
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet
	@echo "open site/index.html"

pictures: setup  ## draw every picture of the documentation again
	$(RUN) docs/draw.py

notebook: setup  ## run docs/walkthrough.ipynb and store what it prints and shows
	TF_CPP_MIN_LOG_LEVEL=3 $(RUN) docs/notebook.py

clean:  ## remove .venv, caches and build outputs, but never runs/
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .hypothesis .ruff_cache
	find keras_transformer tests -name __pycache__ -type d -prune -exec rm -rf {} +
