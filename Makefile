# make setup | test | coverage | lint | docs | demo | clean      STACK=openmmlab for the original OpenMMLab packages
# make setup-litert | test-litert              LiteRT and ExecuTorch, in an environment of their own
STACK ?= onedl
TORCH ?= 2.13.0
TORCHVISION ?= 0.28.0
ifeq ($(STACK),onedl)
VENV ?= .venv
else
VENV ?= .venv-$(STACK)
endif
# An environment that is there is kept whatever python3 is today; PYTHON=... on the command line wins.
PYTHON ?= $(if $(wildcard $(VENV)/bin/python),$(VENV)/bin/python,python3)
PY := $(VENV)/bin/python
EXTRAS ?=
MAKEFLAGS += --no-print-directory

.PHONY: setup test coverage lint format docs demo clean setup-litert test-litert
.DEFAULT_GOAL := setup

setup:
	@command -v '$(PYTHON)' >/dev/null || { \
	  echo "set-up stopped: PYTHON=$(PYTHON) is not found; name a Python 3.10 to 3.12: make setup PYTHON=python3.11" >&2; exit 1; }
	@'$(PYTHON)' -c "import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 12) else 'set-up stopped: Python 3.10 to 3.12 is needed, but PYTHON=$(PYTHON) is %d.%d; name another one: make setup PYTHON=python3.11' % v)"
	@'$(PYTHON)' scripts/setup_env.py --stack '$(STACK)' --venv '$(VENV)' --torch '$(TORCH)' --torchvision '$(TORCHVISION)' --extras $(EXTRAS)

test: setup
	@$(PY) -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(ARGS)

# The tracer makes exports, which are Python through and through, take half as long again.
coverage:
	@$(MAKE) test ARGS='--cov --cov-report=term --cov-fail-under=90 $(ARGS)'

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: setup
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: setup
	@$(PY) scripts/build_docs.py $(ARGS)

demo: setup
	@$(PY) demo/run_demo.py $(ARGS)

setup-litert:
	@$(MAKE) setup VENV=.venv-litert EXTRAS='litert executorch'

test-litert: setup-litert
	@.venv-litert/bin/python -m pytest tests/test_export/test_mobile.py $(ARGS)

clean:
	rm -rf build dist *.egg-info mmqnet/.mim mmqnet/ops/_C*.so .coverage .coverage.* \
	  .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -path './.venv*' -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
