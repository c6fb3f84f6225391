# Everything below sets up what it needs: a machine with Python 3.11 or newer and make is enough.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
WORKERS ?= 2
# One thread a worker: two workers on two cores otherwise fight for them.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MUJOCO_GL=disable

.PHONY: demo test check faults audit bench bench-large bench-latency

demo: .venv/run.stamp
	$(BIN)/ipd demo

test: .venv/test.stamp
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

check: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The long form of the tests that stop runs and break files, and the table of what it counted; over an hour.
faults: .venv/test.stamp
	IPD_FAULTS=long $(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal \
	    -o junit_family=xunit1 --junitxml=.pytest_cache/faults.xml tests/faults tests/formats \
	    tests/test_safety.py tests/runs/test_ray.py tests/runs/test_loop.py tests/runs/test_alarms.py
	$(BIN)/python tests/faults/figures.py .pytest_cache/faults.xml bench/results/faults.csv docs/reliability.md

# Known vulnerabilities of the pinned versions. It needs a network, so it is no part of the tests; what could not be
# asked for is not passed.
audit: .venv-audit/audit.stamp
	@cd .venv-audit && if bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off \
	    -r ../constraints.txt > found.txt 2> said.txt; \
	then echo "audit: no known vulnerability in the versions of constraints.txt"; \
	else cat found.txt; tail -n 1 said.txt; \
	    test -s found.txt || echo "audit: not made, nobody to ask from here; try again with a network"; exit 1; fi

.venv/pyvenv.cfg:
	$(PYTHON) -m venv .venv

.venv/run.stamp: .venv/pyvenv.cfg pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[envs]'
	touch $@

.venv/test.stamp: .venv/pyvenv.cfg pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[envs,test]'
	touch $@ .venv/run.stamp

.venv/dev.stamp: .venv/pyvenv.cfg pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@ .venv/run.stamp .venv/test.stamp

# Speed on this machine, beside what people would use instead.
bench: .venv/run.stamp .venv-peers/peers.stamp
	$(BIN)/python bench/run.py

# What a person waits for.
bench-latency: .venv/run.stamp
	$(BIN)/python bench/latency.py

# What ten times the data cost, and sets larger than memory.
bench-large: .venv/run.stamp
	$(BIN)/python bench/large.py

.venv-peers/peers.stamp: bench/peers/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

.venv-audit/audit.stamp:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.7,<3' || \
	    { echo "audit: not made, pip-audit cannot be installed from here; try again with a network"; exit 1; }
	touch $@
