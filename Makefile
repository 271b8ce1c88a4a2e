# Everything is set up in .venv and build/; a machine needs Python >= 3.11 with its headers, a C
# compiler and make. Targets may be run in any order, any number of times.

PYTHON ?= python3
TORCH ?= torch==2.13.0
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
C_FILES = $(shell find csrc -name '*.[ch]' -o -name '*.inl')
# `make demo` alone needs fewer packages; an environment that has them all serves it as well
EXTRAS := $(if $(filter-out demo,$(MAKECMDGOALS))$(wildcard $(VENV)/.dev),dev,demo)

# nothing but .venv is seen, whatever the caller's shell has set
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.PHONY: help venv build demo test lint format docs sanitize bench wheel dist clean distclean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

define CHECK_PYTHON
import os, sys, sysconfig
if sys.version_info < (3, 11):
    sys.exit("fastconv needs Python >= 3.11 and %s is %d.%d; name another one: make PYTHON=python3.12 ..."
             % (sys.executable, sys.version_info[0], sys.version_info[1]))
if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
    sys.exit("Python.h of %s is missing: install the headers (Debian: apt install python3-dev)"
             % sys.executable)
try:
    import ensurepip, venv
except ImportError:
    sys.exit("%s has no venv: install it (Debian: apt install python3-venv)" % sys.executable)
endef
export CHECK_PYTHON

$(VENV)/.created:
	@command -v $(PYTHON) > /dev/null || \
		{ echo "no $(PYTHON) here; name a Python >= 3.11: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c "$$CHECK_PYTHON"
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# What pyproject.toml asks for to build, then for an extra; the package itself is linked, its
# extensions are built in place by `make build`.
$(VENV)/.%: pyproject.toml $(VENV)/.created
	$(BIN)/python -c "import tomllib; \
		print(*tomllib.load(open('pyproject.toml', 'rb'))['build-system']['requires'], sep='\n')" \
		> $(VENV)/build-requires.txt
	$(BIN)/python -m pip install --quiet --requirement $(VENV)/build-requires.txt
	FASTCONV_EXTENSIONS=0 $(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[$*]'
	@touch $@

venv: $(VENV)/.dev ## create .venv with all that developers need

# setup.py compiles what is older than its sources, on all cores, and nothing else
build: $(VENV)/.$(EXTRAS) ## compile what has changed, in place
	$(BIN)/python setup.py --quiet build_ext --inplace

demo: build ## set everything up and run the whole way: train, export, prove, predict
	$(BIN)/fastconv demo --out out/demo

test: build ## run the tests (ARGS="-k conv" chooses)
	$(BIN)/pytest $(ARGS)

lint: $(VENV)/.$(EXTRAS) ## ruff, mypy, cython-lint, clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(BIN):$$PATH" cython-lint fastconv/_native
	$(BIN)/clang-format --dry-run -Werror $(C_FILES)

format: $(VENV)/.$(EXTRAS) ## let ruff and clang-format correct what they can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES)

docs: build ## build the documentation site into out/site, with every link checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs --quiet build

# The sanitizers' runtime must be the first thing that the interpreter loads, with libstdc++ beside
# it, which it asks for __cxa_throw before numpy brings it in. Any report ends the process.
SANITIZED = env LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	PYTHONMALLOC=malloc PYTHONPATH=$(abspath build/sanitize/lib)

sanitize: $(VENV)/.$(EXTRAS) ## kernel tests under the address and undefined-behaviour sanitizers (gcc)
	CC=gcc FASTCONV_SANITIZE=1 $(BIN)/python setup.py --quiet build --build-lib build/sanitize/lib
	$(SANITIZED) $(BIN)/python -P -c \
		"from fastconv._native import dispatch; assert '-fsanitize' in dispatch.flags()"
	$(SANITIZED) $(BIN)/pytest --capture=no -m kernels $(ARGS)

bench: build ## measure beside PyTorch and ONNX Runtime (ARGS=train chooses a part)
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python benchmarks/run.py $(ARGS)

wheel: $(VENV)/.$(EXTRAS) ## build sdist and wheel into dist/, each in an environment of its own
	rm -rf dist
	$(BIN)/python -m build

dist: wheel ## the same

clean: ## remove what was built, keep .venv
	rm -rf build dist out *.egg-info fastconv/_native/*.so fastconv/_native/*.c
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## remove .venv too
	rm -rf $(VENV)
