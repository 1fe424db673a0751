# Everything a person or CI does here. `make help` lists it.
#
# Caches live outside the checkout, keyed by content: $(CACHE). Nothing but Rust, Go and a Debian 12 is assumed;
# what else is needed is installed by the step that needs it (as root).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE ?= $(or $(VALV_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/valv)
export VALV_CACHE := $(CACHE)
export CARGO_TARGET_DIR ?= $(CACHE)/target
export CARGO_TERM_PROGRESS_WHEN ?= never

# One set of features for all that is built here, so that nothing is built twice: the whole workspace, and with
# --examples (there are none) also what its tests need.
BUILD = cargo build --workspace --bins --examples
BINARIES := $(CARGO_TARGET_DIR)/debug
CLUSTER := $(BINARIES)/cluster
HARNESS := $(BINARIES)/harness
CRDGEN := $(BINARIES)/crdgen
# With KUBECONFIG set, demo, e2e and bench use that cluster, and leave it up.
ifdef KUBECONFIG
BRING_UP = printf '    using the cluster of KUBECONFIG=%s\n' "$(KUBECONFIG)"
TAKE_DOWN = true
else
BRING_UP = $(CLUSTER) up
TAKE_DOWN = $(CLUSTER) down
endif
DENY := $(CACHE)/tools/bin/cargo-deny
DENY_VERSION := 0.20.2
DOC_LINTS := --deny warnings --allow rustdoc::private_intra_doc_links
E2E_THREADS ?= 6
TEST ?=

# Each step says what it does and how long it took: $(call step,what,command)
step = @started=$$SECONDS; printf '\n==> %s\n' '$(1)'; $(2); printf '    done in %s s\n' "$$((SECONDS - started))"

.PHONY: help
help: ## list what can be made
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{ printf "  %-14s %s\n", $$1, $$2 }'

.PHONY: binaries
binaries:
	$(call step,compiling,$(BUILD))

.PHONY: demo
demo: binaries ## a real cluster, Valv on it, one journal, a note that survives its database
	@started=$$SECONDS; trap '$(TAKE_DOWN)' EXIT; $(MAKE) --no-print-directory cluster-up; $(BINARIES)/demo; printf '\ndemo: PASSED in %s s\n' "$$((SECONDS - started))"

.PHONY: test
test: ## everything that gates a change: 18 min warm
	@started=$$SECONDS; \
	if $(MAKE) --no-print-directory lint unit docs-check chart-check e2e-all ground-first; \
	then printf '\nmake test: PASSED in %s s\n' "$$((SECONDS - started))"; \
	else printf '\nmake test: FAILED after %s s\n' "$$((SECONDS - started))"; exit 1; fi

.PHONY: test-all
test-all: ## test, and what takes longer: accessibility in a browser, measurements, all of ground
	$(MAKE) --no-print-directory test
	@trap '$(TAKE_DOWN)' EXIT; $(MAKE) --no-print-directory axe bench
	$(MAKE) --no-print-directory ground

.PHONY: e2e
e2e: ## the tests on a real cluster; one of them: make e2e TEST=name; the cluster stays up
	$(MAKE) --no-print-directory cluster-up
	$(call step,installing Valv,$(HARNESS) install)
	$(call step,tests on the cluster,cargo test --quiet --workspace --test e2e -- $(TEST) --test-threads=$(E2E_THREADS) --nocapture)

.PHONY: e2e-all
e2e-all:
	@trap '$(TAKE_DOWN)' EXIT; $(MAKE) --no-print-directory e2e

.PHONY: ground
ground: ## the local cluster leaves the host as it was
	$(call step,the host before and after a cluster,cargo test --quiet --workspace --test ground -- --test-threads=1 --nocapture)

.PHONY: ground-first
ground-first:
	$(call step,the host before and after a cluster,cargo test --quiet --workspace --test ground -- down_leaves a_part_that_dies an_interrupted --test-threads=1 --nocapture)

.PHONY: unit
unit: binaries ## tests that need no cluster (they start a PostgreSQL of their own)
	$(call step,a PostgreSQL for the tests of the journal,ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null || { apt-get -q update && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -q install --yes --no-install-recommends postgresql; } >/dev/null)
	$(call step,tests without a cluster,VALV_POSTGRES_ROOT="$$($(CLUSTER) postgres-root)" cargo test --quiet --workspace)

.PHONY: lint
lint: $(DENY) ## formatting, clippy, licences, generated files
	$(call step,formatting,cargo fmt --all --check)
	$(call step,clippy,cargo clippy --quiet --workspace --all-targets -- --deny warnings)
	$(call step,licences and sources,$(DENY) check --hide-inclusion-graph licenses bans sources)
	$(call step,generated files,$(MAKE) --no-print-directory generate && git diff --exit-code -- charts/valv/templates/crds docs/api.md)

.PHONY: advisories
advisories: $(DENY) ## known vulnerabilities (needs the RustSec database)
	$(DENY) check advisories

$(DENY):
	$(call step,building cargo-deny $(DENY_VERSION): 3 min once,cargo install --quiet --locked --profile dev --version $(DENY_VERSION) --root $(CACHE)/tools cargo-deny)

.PHONY: fmt
fmt: ## format the code
	cargo fmt --all

.PHONY: generate
generate: binaries ## the chart's custom resource definitions and docs/api.md, from crds/
	$(CRDGEN) chart charts/valv/templates/crds
	$(CRDGEN) reference docs/api.md

.PHONY: docs
docs: generate ## docs/api.md and the crates' documentation
	RUSTDOCFLAGS="$(DOC_LINTS)" cargo doc --quiet --workspace --no-deps

.PHONY: docs-check
docs-check:
	$(call step,documentation,RUSTDOCFLAGS="$(DOC_LINTS)" cargo doc --quiet --workspace --no-deps)

.PHONY: chart-check
chart-check: binaries
	$(call step,the chart,helm="$$($(CLUSTER) programs --path helm)"; charts/valv/check.sh "$$helm")

.PHONY: axe
axe: ## the journal's pages in a browser, checked for accessibility
	$(MAKE) --no-print-directory cluster-up
	$(call step,installing Valv,$(HARNESS) install)
	$(call step,accessibility,tests/journal/axe/run.sh "$(CLUSTER)")

.PHONY: bench
bench: ## the operator's memory and speed with 1 running and 50 suspended tenants
	$(MAKE) --no-print-directory cluster-up
	$(call step,measuring,$(BINARIES)/bench)

.PHONY: cluster-up
cluster-up: binaries ## bring the local cluster up (with KUBECONFIG set: use that one)
	$(call step,the cluster,$(BRING_UP))

.PHONY: cluster-down
cluster-down: binaries ## take it down: nothing of it is left
	$(CLUSTER) down

.PHONY: images
images: binaries ## write the image archives, to load into another cluster
	$(CLUSTER) images --out images

.PHONY: clean
clean: ## remove what was built (the cache outside the checkout: make clean-cache)
	rm -rf images
	cargo clean

.PHONY: clean-cache
clean-cache: cluster-down ## remove the cache: the next run is a cold one
	rm -rf $(CACHE)
