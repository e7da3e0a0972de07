# `make check` before every commit; `make test-all` before every submission.
.PHONY: check lint types imports test test-all test-jit-off bench mutants

check: lint types imports test

lint:
	ruff format --check .
	ruff check .

types:
	mypy

imports:
	lint-imports

test:
	pytest -q -m "not slow"

test-all: test-jit-off
	pytest -q

test-jit-off:
	NUMBA_DISABLE_JIT=1 pytest -q -m "not slow" tests/test_membrane.py tests/test_derivatives.py
	NUMBA_DISABLE_JIT=1 pytest -q tests/test_graph.py tests/test_ift.py -k "stop_leaves or full or synapses or names or graze or entry or roads"
	NUMBA_DISABLE_JIT=1 pytest -q tests/test_certify.py -k "enclose or bounds or hides or before_any or stop"
	NUMBA_DISABLE_JIT=1 pytest -q tests/test_hard_cases.py -k "asked_for and not 20000 or 1e8_at_large_times"

bench:
	python -m benchmarks

# Needs the extra `mutation`; see mutation/README.md. `make mutants MUTANTS="--sample 80"` takes a sample of each file.
mutants:
	python -m mutation.run $(MUTANTS)
