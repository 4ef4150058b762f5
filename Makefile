# The verbs of this repository; `.ci/run` uses these and nothing else.
#
#   make serve                     install and serve the bundled model on 127.0.0.1:8000
#   make serve ARGS="--port 9000"  the same, with options of `quire serve`
#
# What is needed: Python 3.11 or newer with venv, and a C++20 compiler. All else comes into .venv.
PYTHON ?= python3
ARGS ?=
REQUESTS ?= 2000

VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml CMakeLists.txt $(wildcard quire/kernels/cpu/*.cpp quire/kernels/cpu/*.h quire/kernels/cpu/*.txt)

.DEFAULT_GOAL := help
.PHONY: help install serve test optimized check fmt bench isa sanitize docs wheel beside chaos soak train clients fuzz gpu clean

help: ## list the verbs
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1@\2/p' $(MAKEFILE_LIST) | column -t -s @ 2>/dev/null || \
		sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1   \2/p' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## make .venv with quire in it (no torch)

serve: $(VENV)/.installed ## install, then serve: make serve ARGS="MODEL --port 9000"
	@$(BIN)/quire serve $(ARGS)

test: $(VENV)/.installed-test ## install with the test extra, then run every test
	@$(BIN)/python -m pytest $(ARGS)

# Tests' own asserts are statements of pytest's by then, and still hold; those of the package are gone.
optimized: $(VENV)/.installed-test ## run the server's and the security tests under python -O, which takes asserts away
	@$(BIN)/python -O -m pytest -W "ignore::pytest.PytestConfigWarning" -q tests/server tests/security $(ARGS)

check: $(VENV)/.installed-test ## lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fmt: $(VENV)/.installed-test ## put the sources into their one form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed ## measure the bundled model offline: make bench ARGS="MODEL --requests 32"
	@$(BIN)/quire bench offline --json $(ARGS)

# Processors without AVX, and with AVX2 but no AVX-512, each with the kernels that it is there to test. Python itself runs on
# them too, which is slow, so every third test of each file is run: make isa ONE_IN=1 runs all of them.
ONE_IN ?= 3
EMULATED = --hypothesis-profile emulated --one-in $(ONE_IN) $(ARGS)
isa: $(VENV)/.installed-test ## run the op tests on emulated older processors (qemu-user)
	@command -v qemu-x86_64 >/dev/null || \
		{ echo "make isa needs qemu-x86_64 (Debian: apt-get install qemu-user)" >&2; exit 2; }
	$(BIN)/python -m pytest -q tests/test_isa_objects.py
	qemu-x86_64 -cpu Nehalem $(BIN)/python -m pytest -q -x -p no:cacheprovider tests/ops -k generic $(EMULATED)
	qemu-x86_64 -cpu Haswell $(BIN)/python -m pytest -q -x -p no:cacheprovider tests/ops -k avx2 $(EMULATED)

# The package is built apart, with its own copy of the Python files; -S keeps the editable install out of the way.
SANITIZED := build/sanitize
sanitize: $(VENV)/.installed-test ## run the op tests under AddressSanitizer and UndefinedBehaviorSanitizer
	rm -rf $(SANITIZED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(SANITIZED) \
		--config-settings=cmake.define.QUIRE_SANITIZE=ON --config-settings=cmake.build-type=None \
		--config-settings=install.strip=false --config-settings=build-dir=build/sanitize-objects .
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
		PYTHONPATH=$(SANITIZED):$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'):$(CURDIR) \
		$(BIN)/python -S -P -m pytest -q -p no:cacheprovider tests/ops $(ARGS)

docs: $(VENV)/.installed ## write the generated pages of docs/ anew
	@$(BIN)/python tools/docs.py

wheel: $(VENV)/.created ## build dist/quire-*.whl, which needs no compiler where it is installed
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	@ls -l dist/*.whl

# Clients are pinned and come into an environment and a folder of their own; node (18 or newer) and npm must be there.
CLIENTS := .venv-clients
clients: $(VENV)/.installed $(CLIENTS)/.installed clients/node_modules/.installed ## run other people's clients against a server
	@$(BIN)/python clients/run.py $(BIN)/quire $(abspath $(CLIENTS))/bin/python

$(CLIENTS)/.installed: clients/requirements.txt
	@$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

clients/node_modules/.installed: clients/package.json clients/package-lock.json
	@command -v npm >/dev/null || { echo "make clients needs node (18 or newer) and npm" >&2; exit 2; }
	npm ci --prefix clients --no-audit --no-fund --loglevel=error
	@touch $@

beside: $(VENV)/.installed-test ## hostile requests beside healthy streams: make beside REQUESTS=100000
	@$(BIN)/python -m chaos.beside --requests $(REQUESTS) $(ARGS)

# Fuzzers are pinned and come into an environment of their own. What they find stays in build/fuzz/findings.
FUZZ := .venv-fuzz
SECONDS ?= 20
TARGETS ?=
fuzz: $(VENV)/.installed $(FUZZ)/.installed ## fuzz what reads foreign bytes: make fuzz SECONDS=600 TARGETS="wire http"
	@$(BIN)/python fuzz/run.py $(BIN)/quire $(abspath $(FUZZ))/bin/python --seconds $(SECONDS) $(if $(TARGETS),--targets $(TARGETS)) $(ARGS)

$(FUZZ)/.installed: fuzz/requirements.txt
	@$(PYTHON) -m venv $(FUZZ)
	$(FUZZ)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

chaos: $(VENV)/.installed-test ## kill, stop, starve and fill up a server, and look: make chaos ARGS="--only stderr"
	@$(BIN)/python -m chaos.night $(ARGS)

MINUTES ?= 2
soak: $(VENV)/.installed-test ## everything at once for MINUTES, and whether anything grows
	@$(BIN)/python -m chaos.soak --minutes $(MINUTES) $(ARGS)

# A machine with a GPU may have nothing but its own Python with torch and triton: no environment is made, nothing built.
PART ?= all
gpu: ## check and measure on a machine with an NVIDIA GPU: make gpu PART=correctness
	@PYTHONPATH=. $(PYTHON) -m benchmarks.gpu $(PART) $(ARGS)

train: $(VENV)/.installed-test ## train the bundled model again (torch, fixed seed)
	$(BIN)/python -m training.train $(ARGS)

clean: ## remove what was built (not .venv)
	rm -rf build dist

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "quire needs Python 3.11 or newer; got $$($(PYTHON) --version). Try: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# The test extra comes on top of the same environment; installing it also brings the plain install up to date.
$(VENV)/.installed-test: $(VENV)/.created $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(VENV)/.installed
