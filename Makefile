# `make check` before every commit; `make test-all` before every submission.
.PHONY: check lint types imports test test-all evidence test-jit-off coverage test-bounds docs bench browser guard mutants release-check

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

test-all: test-jit-off test-bounds evidence
	pytest -q -n 2 --dist worksteal

# Tests of minutes, of what few changes touch: vectors on processors that are not here, the unpacked sdist, ten million
# inputs, the paper's claims over several seeds. `pytest` alone, and so `.ci/run`, leaves them out; a release does not.
evidence:
	pytest -q -m evidence

# Kernels as plain Python, on short runs. `make test-bounds` runs the longer tests of the same indices.
# `test_graph.py` in a selection is the file of a test.
test-jit-off:
	NUMBA_DISABLE_JIT=1 pytest -q tests/test_membrane.py tests/test_derivatives.py tests/test_graph.py tests/test_ift.py \
		tests/test_certify.py tests/test_validity.py tests/test_constants.py tests/test_distances.py \
		tests/test_trained_chain.py tests/test_chain_starts.py tests/test_chain_delays.py tests/test_projections.py \
		tests/test_blocks.py tests/test_hard_cases.py tests/test_alpha.py -k " \
		test_membrane.py and not fifty_digits \
		or test_derivatives.py and (stop or fused or closed_form or straight_lines or graze or counts or column) \
		or test_graph.py and (stop_leaves or full or synapses or graze) \
		or test_ift.py and (names or graze or entry or roads) \
		or test_certify.py and (enclose or bounds or hides or before_any or stop) \
		or test_validity.py and (margins or instant or hold or stop or silent) \
		or test_constants.py and (burst or zero or closed_form or initial) \
		or test_distances.py \
		or test_trained_chain.py and differences \
		or (test_chain_starts.py or test_chain_delays.py) and (without_any_input or instant) \
		or test_projections.py and (reach_a_unit_once or split_in_two or two_delays or add_up) \
		or test_blocks.py and (stop or which or wait) \
		or test_alpha.py and (meet or peaks_where or chunks) \
		or test_hard_cases.py and (asked_for and not 20000 or 1e8_at_large_times)"

# Kernels that check every index. These files run all of them: those of graphs, of chains and of replays, their
# derivatives, proofs and margins, on random networks of every kind. A cache of its own is filled first, in float64: both
# precisions have the same loops and indices.
BOUNDS = NUMBA_BOUNDSCHECK=1
test-bounds:
	$(BOUNDS) pytest -q -m "not slow" tests/test_graph.py tests/test_derivatives.py tests/test_replay.py tests/test_trained_chain.py \
		tests/test_chain_starts.py tests/test_chain_delays.py tests/test_blocks.py -k " \
		not float32 and not dtype1 and not dtype_of and not difference_of_the_oracle"
	$(BOUNDS) pytest -q tests/test_constants.py tests/test_validity.py tests/test_certify.py tests/test_alpha.py -k " \
		test_alpha.py and (chunks or certified or silent or meet) \
		or test_constants.py and (burst or zero or batch or replay or gradients and several or hold-start or certified) \
		or (test_validity.py or test_certify.py) and (margins or clearances or steps or batch or stop or hold)"

# Of all that is not compiled; kernels are covered with the JIT off and by mutants.
coverage:
	coverage run -m pytest -q
	coverage report

# The documentation site, into build/site: needs the extra `docs` and no network. Tutorials are run; warnings are errors.
# `make docs SPHINX="-D nb_execution_mode=off"` shows their text alone: `pytest tests/test_tutorials.py` runs them too.
SPHINX ?=
docs:
	python -m sphinx -q -W --keep-going $(SPHINX) -b html docs build/site

# `make bench BENCH="growth --quick"`, `BENCH="peers --data DIR"`; see `python -m benchmarks --help`.
BENCH ?= kernels
bench:
	python -m benchmarks $(BENCH)

# Needs the extra `browser` and a Chromium: Debian's package `chromium`, or `playwright install chromium`.
browser:
	pytest -q browser

# Ratios to a plain loop in the same run, against those stored in benchmarks/guard.json; says what got slower.
guard:
	python -m benchmarks.guard

# Needs the extra `mutation`; see mutation/README.md. `make mutants MUTANTS="--sample 80"` takes a sample of each file.
mutants:
	python -m mutation.run $(MUTANTS)

# Builds and checks sdist and wheel, runs the whole suite on the wheel with every Python that is here, and follows links.
# Takes hours; says what it could not check. `make release-check RELEASE="--python 3.12"` takes one Python.
release-check:
	python .ci/release_check.py $(RELEASE)
