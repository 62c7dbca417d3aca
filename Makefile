# Hanse's commands. `make` alone lists them.
#
# A machine needs Python 3.11 or newer and make, nothing else: the first command makes .venv and installs the
# versions of constraints.txt into it. Whatever installs speaks on standard error only.

PYTHON ?= python3
BIN := .venv/bin
CHECKED := $(wildcard src tests benchmarks tools examples chaos)
INSTALL_INPUTS := pyproject.toml constraints.txt tools/install.py

.DEFAULT_GOAL := help
.PHONY: help up test test-vllm check format format-check lint types imports docs generate bench-affinity bench-attestation bench-audio bench-audit bench-budgets bench-compare bench-copies bench-disputes bench-gas bench-gateway bench-index bench-layers bench-match bench-path bench-protocol bench-proving bench-records bench-seen bench-threads bench-toploc bench-utilisation bench-vllm bench-zk day sim-cheats sim-auditors sim-settlement mutation chaos soak lock clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Ctrl-C reaches every process of the terminal. To stop it by make's process id alone send SIGTERM: GNU make hands that
# on to what it runs, and SIGINT to nobody.
up: .venv/run.stamp ## start a local network and buy one real answer; ONCE=1 stops after it
	$(BIN)/hanse up $(if $(filter 1,$(ONCE)),--once)

test: .venv/dev.stamp ## run all tests, four files at a time; TESTS=tests/protocol for some
	$(BIN)/pytest -n $(or $(WORKERS),4) --dist loadfile --no-loadscope-reorder $(TESTS)

check: format-check lint types imports test ## all that CI runs: format, lint, types, imports, docs, tests

format: .venv/dev.stamp ## write the code in the house's format
	$(BIN)/ruff format $(CHECKED)
	$(BIN)/ruff check --fix $(CHECKED)

format-check: .venv/dev.stamp
	$(BIN)/ruff format --check $(CHECKED)

lint: .venv/dev.stamp ## look for mistakes (ruff)
	$(BIN)/ruff check $(CHECKED)

types: .venv/dev.stamp ## check the types (mypy, strict)
	$(BIN)/mypy

imports: .venv/dev.stamp ## check that imports follow the layers
	$(BIN)/lint-imports

docs: .venv/dev.stamp ## check the docs: links, diagram, glossary, generated pages, examples
	$(BIN)/pytest tests/house

generate: .venv/dev.stamp ## write the generated pages of docs/ anew
	$(BIN)/python -m tools.generate

bench-gas: .venv/dev.stamp ## gas of settlements and onboarding, one JSON line a case
	$(BIN)/python -m benchmarks.bench_gas

bench-disputes: .venv/dev.stamp ## what a look for cheats costs the user's side, one JSON line a case
	$(BIN)/python -m benchmarks.bench_disputes

bench-budgets: .venv/dev.stamp ## what limits cost a request in processor time, one JSON line a case
	@$(BIN)/python -m benchmarks.bench_budgets

bench-path: .venv/dev.stamp ## processor time of the paid path, one JSON line a case; PEERS=0 for Hanse alone, PACE=10 for ms a token
	$(BIN)/python -m benchmarks.bench_path --peers $(or $(PEERS),1) --pace-ms $(or $(PACE),0)

bench-compare: .venv/dev.stamp ## the paid path of another checkout beside this one's; BEFORE=../before WHOLE=1
	$(if $(BEFORE),,$(error say which checkout to compare with: make bench-compare BEFORE=../before))
	@$(BIN)/python -m benchmarks.bench_compare "$(BEFORE)" $(if $(WHOLE),--whole) --pairs $(or $(PAIRS),14)

bench-gateway: .venv/dev.stamp ## gateways side by side, one JSON line a case; PEERS=0 for Hanse alone, TOKENS=64 of an answer, PACE=10 for ms a token
	$(BIN)/python -m benchmarks.bench_gateway --peers $(or $(PEERS),1) $(if $(TOKENS),--tokens $(TOKENS)) --pace-ms $(or $(PACE),0)

bench-index: .venv/dev.stamp ## how an event index catches up, from a fake node; EVENTS=1000000
	@$(BIN)/python -m benchmarks.bench_index --events $(or $(EVENTS),1000000)

bench-attestation: .venv/dev.stamp ## what verifying an attestation takes, one JSON line a case
	@$(BIN)/python -m benchmarks.bench_attestation

bench-affinity: .venv/dev.stamp ## four characters at two providers with and without affinity, real model; TURNS=4
	@$(BIN)/python -m benchmarks.bench_affinity --turns $(or $(TURNS),4)

bench-layers: .venv/dev.stamp ## what judging by a schema and staying up add to an answer, one JSON line a case
	@$(BIN)/python -m benchmarks.bench_layers

bench-match: .venv/dev.stamp ## how long one choice takes among OFFERS=100000, one JSON line; KNOWN=1000 with heartbeats, RATED=0 ATTESTED=0
	@$(BIN)/python -m benchmarks.bench_match --offers $(or $(OFFERS),100000) --known $(or $(KNOWN),1000) --rated $(or $(RATED),0) --attested $(or $(ATTESTED),0)

bench-utilisation: .venv/dev.stamp ## requests at 99 % of a balance with top-ups and refunds; REQUESTS=100000
	@$(BIN)/python -m benchmarks.bench_utilisation --requests $(or $(REQUESTS),100000)

bench-copies: .venv/dev.stamp ## what copies of the packaged model cost and give away, one JSON line a case; COPIES=100 ANSWERING=16 CASES=trace,answers
	@nice -n 10 $(BIN)/python -m benchmarks.bench_copies --copies $(or $(COPIES),100) --answer-copies $(or $(ANSWERING),16) --cases $(or $(CASES),exact,quality,attack,trace,answers)

bench-proving: .venv/dev.stamp ## what carrying the proof costs the engine, one JSON line a case; COPY=copy.gguf ROUNDS=40 USERS=1,8 SIDES=plain,copy,proving,told,wrapped SECONDS=300 each of USERS OTHERS=.05 where others took less
	@$(BIN)/python -m benchmarks.bench_proving --copy '$(COPY)' $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(OTHERS),--others $(OTHERS)) $(if $(USERS),--users $(USERS)) $(if $(SIDES),--sides $(SIDES))

bench-threads: .venv/dev.stamp ## how long the engine's threads should wait awake, one JSON line a case; SPINS=0,300,1000,300000 CASES=idle,busy,engines ROUNDS=6
	@$(BIN)/python -m benchmarks.bench_threads $(if $(SPINS),--spins $(SPINS)) $(if $(CASES),--cases $(CASES)) $(if $(ROUNDS),--rounds $(ROUNDS))

bench-audio: .venv/dev.stamp ## what a transcription's process costs and how fast it stops, one JSON line a case
	@nice -n 10 $(BIN)/python -m benchmarks.bench_audio

bench-audit: .venv/dev.stamp ## cheats against rungs on the packaged model, JSON lines; QUICK=0 takes hours and goes on where it was stopped, REPORT=1 prints what it has, CHEATS=kv4,swap only these, RUNTIME=torch
	@OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=300 $(BIN)/python -m benchmarks.bench_audit --quick $(or $(QUICK),1) --runtime $(or $(RUNTIME),llama) --report $(or $(REPORT),0) --folder $(or $(FOLDER),.cache/bench-audit) $(if $(CHEATS),--cheats $(CHEATS))

bench-toploc: .venv/dev.stamp ## TOPLOC's own package beside our proof on the same answers, JSON lines; HONEST=120 CHEATING=8, ten minutes of a quiet core
	@OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=300 $(BIN)/python -m benchmarks.bench_toploc --honest $(or $(HONEST),120) --cheating $(or $(CHEATING),8)

bench-records: .venv/dev.stamp ## how fast a recorder takes, commits and proves; one JSON line
	@$(BIN)/python -m benchmarks.bench_records

bench-seen: .venv/dev.stamp ## what metrics, log and traces add to a request's processor time, one JSON line a mode
	@$(BIN)/python -m benchmarks.bench_seen

bench-protocol: .venv/dev.stamp ## time of digests, signatures and wire formats, one JSON line a case
	$(BIN)/python -m benchmarks.bench_protocol

bench-vllm: .venv/dev.stamp ## a real vLLM on the processor, its proof and what audits find, JSON lines; ANSWERS=120 TOKENS=64 RECORD=file
	@OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=300 nice -n 10 $(BIN)/python -m benchmarks.bench_vllm --answers $(or $(ANSWERS),120) --tokens $(or $(TOKENS),64) --record '$(RECORD)'

test-vllm: .venv/dev.stamp ## the tests that take a running vLLM, which is installed beside (3.5 GB); no part of `make test`
	@$(BIN)/python -c 'from benchmarks.vllm_side import install; install()'
	@HANSE_VLLM=1 nice -n 10 $(BIN)/pytest tests/engines/test_vllm_running.py tests/cli/auditing/test_vllm_sold.py

bench-zk: .venv/dev.stamp ## what a zero-knowledge proof of a small classifier costs, one JSON line; PROOFS=5
	@$(BIN)/python -m benchmarks.bench_zk --proofs $(or $(PROOFS),5)

sim-cheats: .venv/dev.stamp ## what each cheat earns in a month at audit rates from 0.1 to 10 %, JSON lines; SEED=1, DETECTIONS=lines of bench-audit, PLOT=f.svg
	@$(BIN)/python -m benchmarks.sim_cheats --seed $(or $(SEED),1) $(if $(PLOT),--plot $(PLOT)) $(if $(DETECTIONS),--detections $(DETECTIONS))

day: .venv/dev.stamp ## a day of ten users and two providers to its settlements, checked by a stranger; one JSON line
	@$(BIN)/python -m benchmarks.local_day

sim-settlement: .venv/dev.stamp ## a day of USERS=1000 users settled on an EVM, one JSON line; REQUESTS, SEED, GAS_GWEI
	@$(BIN)/python -m benchmarks.sim_settlement --users $(or $(USERS),1000) --requests $(or $(REQUESTS),20) \
		--seed $(or $(SEED),1) --gas-price-gwei $(or $(GAS_GWEI),0.001)

sim-auditors: .venv/dev.stamp ## what auditors earn who look and who do not, one JSON line a case; CHALLENGES=10000
	@$(BIN)/python -m benchmarks.sim_auditors --challenges $(or $(CHALLENGES),10000)

mutation: .venv/mutation.stamp ## change the money code line by line and see whether a test notices; PARTS=rules
	$(BIN)/python -m tools.mutation $(PARTS)

chaos: .venv/dev.stamp ## break the whole market on purpose by SEED=n for STEPS=300, one JSON line; SEEDS=n for many
	@$(BIN)/python -m chaos $(if $(SEED),--seed $(SEED)) --steps $(or $(STEPS),300) --seeds $(or $(SEEDS),1)

soak: .venv/dev.stamp ## load the whole network for MINUTES=30 while providers are killed, one JSON line; SEED
	@$(BIN)/python -m benchmarks.soak --minutes $(or $(MINUTES),30) --seed $(or $(SEED),1)

lock: .venv/dev.stamp ## resolve all dependencies anew and write constraints.txt
	$(BIN)/python tools/lock.py

clean: ## remove .venv, caches and built files; the local network's state stays
	rm -rf .chaos .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find src tests benchmarks tools chaos -name __pycache__ -prune -exec rm -rf {} +

.venv/run.stamp: $(INSTALL_INPUTS)
	@$(PYTHON) tools/install.py llama,local,audit
	@touch $@

.venv/dev.stamp: $(INSTALL_INPUTS)
	@$(PYTHON) tools/install.py dev
	@touch $@ .venv/run.stamp

.venv/mutation.stamp: $(INSTALL_INPUTS)
	@$(PYTHON) tools/install.py dev,mutation
	@touch $@ .venv/dev.stamp .venv/run.stamp
