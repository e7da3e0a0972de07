# `make check` before every commit; `make test-all` before every submission.
.PHONY: check lint types imports test test-all test-slow bench

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

test-all:
	pytest -q
	NUMBA_DISABLE_JIT=1 pytest -q tests/test_membrane.py tests/test_derivatives.py -m "not slow"

bench:
	python -m benchmarks
