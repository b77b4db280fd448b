# Every verb of this project. `make run` and `make test` set up what they need by themselves.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run test check fmt bench bench-rules chaos outage agents clean

# Cargo prints where it is; a terminal-less run must not wait for input.
CARGO ?= cargo

help: ## What there is to do
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: tools ## Build, start everything on embedded defaults, feed sample events, show where to look
	$(CARGO) run --release --locked --quiet -p server --bin muttd -- demo

test: tools test-tools ## All checks and tests, as CI runs them
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --locked --workspace --no-deps --document-private-items --quiet
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  $(CARGO) nextest run --locked --workspace --no-fail-fast; \
	else \
	  $(CARGO) test --locked --workspace --quiet; \
	fi

check: ## Only compile and lint
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

fmt: ## Format the code
	$(CARGO) fmt --all

chaos: ## The kill -9 loop, longer: CHAOS_ROUNDS=1000 make chaos
	CHAOS_ROUNDS=$${CHAOS_ROUNDS:-500} AGENT_CHAOS_ROUNDS=$${AGENT_CHAOS_ROUNDS:-500} $(CARGO) test --locked -p server --test chaos -- --nocapture

outage: ## Ten minutes without the receiver, and without the link of an agent, with the settings that ship
	$(CARGO) test --locked -p server --test chaos -- --ignored --nocapture outage
	AGENT_APART_SECONDS=600 $(CARGO) test --locked -p server --test chaos -- --nocapture a_link_that_breaks

bench: tools ## Measure against peers in one run; needs rsyslog (installed from Debian's packages)
	bash bench/run.sh

bench-rules: ## Detection rules and correlations against rsigma-eval; BENCH_RULES="RULES... -- EVENTS.jsonl" adds rules of others
	$(CARGO) run --release --locked --quiet --manifest-path bench/sigma/Cargo.toml -- $(BENCH_RULES)

agents: tools ## Build the agents that hosts download, for old systems too, into target/agents
	@bash scripts/agents.sh $(AGENTS)

clean: ## Remove what was built and what `make run` kept
	$(CARGO) clean
	rm -rf .data

.PHONY: test-tools
test-tools:
	@bash scripts/test-tools.sh

.PHONY: tools
tools:
	@bash scripts/tools.sh

.PHONY: postgres-test
postgres-test: tools test-tools ## The tests of the PostgreSQL driver on the oldest and newest servers, of npm packages
	@bash scripts/postgres-versions.sh

.PHONY: packaging-test
packaging-test: tools test-tools ## The installers and the units in a booted systemd (root, some minutes); says NOT RUN where it cannot
	$(CARGO) build --locked -p server --bin muttd -p agent --bin sm-agent
	@bash packaging/tests/container.sh "$${CARGO_TARGET_DIR:-target}/debug/muttd" || { code=$$?; [ $$code = 77 ] || exit $$code; }
	@bash packaging/tests/container.sh "$${CARGO_TARGET_DIR:-target}/debug/muttd" packaging/tests/container-agent.sh || { code=$$?; [ $$code = 77 ] || exit $$code; }
