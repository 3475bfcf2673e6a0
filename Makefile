# `make demo` and `make test` install what they need first; a second `make setup` takes seconds.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test test-fast test-rounding check clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml requirements/install.sh requirements/overrides.txt
	PYTHON=$(PYTHON) sh requirements/install.sh $(VENV)
	touch $@

demo: setup
	$(BIN)/depo run experiments/configs/babyai-tiny.yaml

test: setup
	sh requirements/browser.sh
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/unit tests/structure tests/pipeline
	# Each file in a process of its own: Ray, vLLM and torch's process groups take hold of a whole process.
	failed=; for file in tests/integration/test_*.py tests/chaos/test_*.py; do \
		OMP_NUM_THREADS=1 $(BIN)/python -m pytest $$file || failed="$$failed $$file"; \
	done; [ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

test-fast: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/unit tests/structure -m "not slow"

# The order of sums is another on other processors; these take theirs, as far as this one has them.
test-rounding: setup
	failed=; for rounding in ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2; do \
		echo "== $$rounding"; env $$rounding $(MAKE) test || failed="$$failed $$rounding"; \
	done; [ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

check: setup
	$(BIN)/ruff check platform experiments tests
	$(BIN)/ruff format --check platform experiments tests
	$(BIN)/mypy
	$(MAKE) test

clean:
	rm -rf $(VENV) build platform/*.egg-info
