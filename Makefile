# Post-Training, Hands On. `make help` lists the commands.

# What you may set, on the command line or in the environment:
PYTHON ?= python3
TORCH ?= torch==2.13.0
PORT ?= 8000
NANOGPT ?=
CORPUS ?=
LOCKFLAGS ?=
CHECKS ?=
CHAPTERS ?=
RUNS ?=
RECORDS ?=
SKIP_MISSING ?=
FRESH ?=
PAGE ?=

VENV = .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
UV = uv==0.13.8
RUN_ENV = PATH="$$(pwd)/$(BIN):$$PATH" OMP_WAIT_POLICY="$${OMP_WAIT_POLICY:-PASSIVE}" \
	TOKENIZERS_PARALLELISM=false DO_NOT_TRACK=1 \
	HF_HUB_DISABLE_TELEMETRY=1 VLLM_NO_USAGE_STATS=1 PYDEVD_DISABLE_FILE_VALIDATION=1

.PHONY: help book page test serve bench lock install clean distclean site-check offline links

help:
	@echo 'make book       run the chapters that changed and write the site to _build/html'
	@echo '                  (FRESH=1 runs all of them)'
	@echo 'make page       run and write one chapter: make page PAGE=book/sft/lora'
	@echo 'make test       run the linters, the type checker and the tests'
	@echo 'make serve      show the built site at http://127.0.0.1:$(PORT) (PORT=8000)'
	@echo 'make bench      run the comparisons in code/benchmarks'
	@echo '                  (NANOGPT=folder CORPUS=input.txt for the one against nanoGPT)'
	@echo 'make robustness run the chapters with other processors, formats and seeds'
	@echo '                  (CHAPTERS=book/sft/lora RUNS=avx2-fp32,seed-1000 for a part)'
	@echo 'make records    make the recorded runs again: all, which takes an hour or two, or some'
	@echo '                  (RECORDS=sft/rank_and_rate,pretraining/warm_up)'
	@echo 'make true-shape measure the memory of runs of the real models, in shape: about 40'
	@echo '                  minutes and 9 GB of memory; weekly, since no build does it'
	@echo 'make lock       make requirements.lock again from requirements.in'
	@echo '                  (LOCKFLAGS=--upgrade to take newer versions)'
	@echo 'make site-check look at every page of the built site in a browser, and rate it'
	@echo '                  (Debian packages chromium nodejs npm; CHECKS=offline,axe for a part,'
	@echo '                  CHECKS=ci for what .ci/run does, without what takes long;'
	@echo '                  SKIP_MISSING=1 to leave out what needs a program that is missing)'
	@echo 'make offline    put the built site into a zip that opens without a server'
	@echo 'make links      ask every outside address whether it still answers'
	@echo 'make notebooks  write each chapter as a notebook to _build/notebooks'
	@echo 'make install    only make .venv and install everything into it'
	@echo '                  (PYTHON=python3.12 and TORCH=torch==2.13.0 choose what goes in)'
	@echo 'make clean      remove _build; make distclean also removes .venv'

# What is run, read and written again: book/_ext/chapters/page_keys.py.
book: $(STAMP)
	@$(if $(FRESH),rm -rf _build/.jupyter_cache _build/.doctrees)
	@$(RUN_ENV) jupyter-book build . -n -W --keep-going; status=$$?; \
	test -f _build/html/index.html || exit $$status; \
	test ! -f _build/html/goals.json || \
	  $(RUN_ENV) posttrain goals --failed --path _build/html/goals.json || status=1; \
	echo 'The site is ready: _build/html/index.html (make serve shows it)'; \
	exit $$status

page: $(STAMP)
	@$(RUN_ENV) python -m tools.site.page '$(PAGE)' $(if $(FRESH),--fresh)
	@$(RUN_ENV) posttrain goals --failed --path _build/.doctrees/goals

test: $(STAMP)
	@set -e; PATH="$$(pwd)/$(BIN):$$PATH"; \
	echo '== ruff';         ruff check --quiet .; ruff format --check --quiet .; \
	echo '== mypy';         mypy; \
	echo '== import-linter'; lint-imports --no-logo --cache-dir _build/.import_linter_cache; \
	echo '== pydoclint';    pydoclint code/posttrain; \
	echo '== codespell';    codespell; \
	echo '== actionlint';   actionlint -shellcheck= -pyflakes= .github/workflows/*.yml; \
	echo '== pytest';       $(RUN_ENV) pytest -n 2 --dist loadfile

serve:
	@test -f _build/html/index.html || { echo 'No site yet: run make book first.' >&2; exit 1; }
	@echo 'http://127.0.0.1:$(PORT) (Ctrl-C stops it)'
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

# Files whose name starts with _ hold what the benchmarks share.
bench: $(STAMP)
	@failed=; for script in code/benchmarks/[!_]*.py; do \
	  test -f "$$script" || { echo 'code/benchmarks holds no benchmark yet.'; break; }; \
	  case "$$script" in \
	  *_vs_nanogpt.py) \
	    if [ -z '$(NANOGPT)' ] || [ -z '$(CORPUS)' ]; then \
	      echo "== skipped: $$script needs NANOGPT=<folder of nanoGPT> CORPUS=<its input.txt>"; \
	      continue; \
	    fi; \
	    set -- --nanogpt '$(NANOGPT)' --corpus '$(CORPUS)';; \
	  *) set --;; \
	  esac; \
	  echo "== $$script"; \
	  $(RUN_ENV) python "$$script" "$$@" || failed="$$failed $$script"; \
	done; \
	test -z "$$failed" || { echo "Failed:$$failed" >&2; exit 1; }

.PHONY: robustness
# Each run has a store of its own in _build/robustness; records go to book/results/robustness.
robustness: $(STAMP)
	@$(RUN_ENV) python -m tools.clean.robustness --chapters '$(CHAPTERS)' --runs '$(RUNS)'



.PHONY: true-shape
# Models of the shape of Llama-3.2-1B and Qwen2.5-1.5B with random weights: no part of a build.
true-shape: $(STAMP)
	@$(RUN_ENV) posttrain record sft/true_shape

.PHONY: records
# What is finished is kept: make records again goes on where an interruption left it.
records: $(STAMP)
	@$(RUN_ENV) posttrain record $(if $(RECORDS),'$(RECORDS)',--all)

# The present lock's pins are kept where they still fit; only LOCKFLAGS=--upgrade moves them.
lock:
	@mkdir -p _build
	@test -x _build/lock-env/bin/uv || $(PYTHON) -m venv _build/lock-env
	@_build/lock-env/bin/pip install --quiet --disable-pip-version-check '$(UV)'
	@cp requirements.lock _build/lock.txt
	@_build/lock-env/bin/uv pip compile requirements.in --overrides requirements-overrides.txt \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-emit-package torch \
	  --no-header --no-annotate --quiet $(LOCKFLAGS) --output-file _build/lock.txt
	@{ grep '^#' requirements.lock; grep '^[^#]' _build/lock.txt | LC_ALL=C sort; } > _build/new.lock
	@if cmp -s _build/new.lock requirements.lock; then echo 'requirements.lock is up to date'; \
	else mv _build/new.lock requirements.lock; echo 'requirements.lock has changed'; fi

install: $(STAMP)

# The stamp is written last: an installation that was interrupted starts again. pycosat has no
# wheel, so where nothing can compile it, it is left out.
$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/pip || $(PYTHON) -c \
	  'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || { \
	  echo 'This book needs Python 3.11 or 3.12; $(PYTHON) is' \
	    "$$($(PYTHON) --version 2>&1). Name another one: make book PYTHON=python3.12" >&2; exit 1; }
	@test "$$(uname -sm)" = 'Linux x86_64' || \
	  echo 'Note: requirements.lock was made for Linux on x86-64; this is' "$$(uname -sm)" >&2
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo 'Installing into $(VENV): about 300 packages and 5 GB, which takes several minutes'
	@$(PIP) $(TORCH)
	@cp requirements.lock $(VENV)/install.txt
	@{ command -v cc && $(BIN)/python -c \
	  'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")'; } \
	  >/dev/null 2>&1 || { grep -v '^pycosat==' requirements.lock > $(VENV)/install.txt; \
	  echo 'No C compiler with Python headers: left out pycosat, which only reasoning_gym needs'; }
	@$(PIP) --no-deps -r $(VENV)/install.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $(STAMP)

site-check: $(STAMP)
	@$(RUN_ENV) TORCH='$(TORCH)' python -m tools.site.check --only '$(CHECKS)' \
	  $(if $(SKIP_MISSING),--skip-missing)

offline: $(STAMP)
	@$(RUN_ENV) python -m tools.site.offline_zip

# The pages are read, not run. The settings must lie where _config.yml does.
links: $(STAMP)
	@sed 's/execute_notebooks: cache/execute_notebooks: "off"/' _config.yml > .links.yml; \
	$(RUN_ENV) jupyter-book build . --builder linkcheck --config .links.yml \
	  --path-output _build/links; \
	status=$$?; rm -f .links.yml; exit $$status

.PHONY: notebooks
# The cells are not run.
notebooks: $(STAMP)
	@$(RUN_ENV) python -m tools.notebooks.builder

clean:
	rm -rf _build

distclean: clean
	rm -rf $(VENV) code/*.egg-info
