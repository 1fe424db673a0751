# Everything a person or CI does here. `make help` lists it.
#
# Caches live outside the checkout, keyed by content: $(CACHE). Nothing but Rust, Go and a Debian 12 is assumed;
# what else is needed is installed by the step that needs it (as root).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# There is one cluster, one cargo and little memory: `make -j` changes nothing.
.NOTPARALLEL:

CACHE := $(or $(VALV_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/valv)
export VALV_CACHE := $(CACHE)
export CARGO_TARGET_DIR ?= $(CACHE)/target
export CARGO_TERM_PROGRESS_WHEN ?= never
ifneq ($(words $(CACHE) $(CARGO_TARGET_DIR)),2)
$(error make cannot work with a space in a path: VALV_CACHE="$(CACHE)" CARGO_TARGET_DIR="$(CARGO_TARGET_DIR)")
endif

# One set of features for all that is built here, so that nothing is built twice: the whole workspace, and with
# --examples (there are none) also what its tests need.
BUILD = cargo build --workspace --bins --examples
BINARIES := $(CARGO_TARGET_DIR)/debug
CLUSTER := $(BINARIES)/cluster
HARNESS := $(BINARIES)/harness
CRDGEN := $(BINARIES)/crdgen
# This make, under a name with which `make -n` does not run the line.
SELF := $(MAKE)
# Brings the cluster up for a command, and then takes down what was not up before. KUBECONFIG may name another.
WITH_CLUSTER = $(CLUSTER) run --
DENY := $(CACHE)/tools/bin/cargo-deny
DENY_VERSION := 0.20.2
GARAGE_VERSION := 2.5.0
# A folder for each version: an older one is never taken for it.
GARAGE := $(CACHE)/tools/garage-$(GARAGE_VERSION)/bin/garage
DOC_LINTS := --deny warnings --allow rustdoc::private_intra_doc_links
E2E_THREADS ?= 6
# Those that take long wait for drills most of the time.
E2E_LONG_THREADS ?= 8
TEST ?=
# What gates no change by itself, for it takes long: make test-all has it. First what runs side by side,
E2E_LONG := backup_faults::a_database backup_faults::a_pod backup_faults::an_agent backup_planted:: \
	store_faults:: drill_faults:: drill_judges:: drill_store_faults:: \
	backups::an_agent_that_is_killed drills::a_drill_with_another_key drills::a_drill_that_is_deleted \
	drills::a_bit_that_was_flipped drills::a_commit_that_was_taken_away \
	retention::while_the_clocks_differ retention::a_commit_that_was_lost retention::while_a_commit_is_gone retention::nothing_is_copied \
	retention::backup_objects drills::a_drill_that_is_cancelled progress::a_drill \
	keys::a_drill_key keys::each_holder evidence:: lost_secrets::a_lost_authority lost_secrets::a_lost_password_is_replaced
# and then what has to be alone: all others would have to end before each of these.
E2E_ALONE := warm:: backup_faults::a_node backup_faults::an_operator backup_faults::of_two nodes:: signing_key:: warped:: \
	upheaval::a_drill_whose_operator upheaval::of_two_operators upheaval::a_leader_that_was_frozen upheaval::a_restarted_operator

# So that a fresh clone of what was built before is not compiled again, and another clone of it is
RESTORE = .ci/sources restore "$(CARGO_TARGET_DIR)"
KEEP = .ci/sources keep "$(CARGO_TARGET_DIR)"

# Each step says what it does and how long it took: $(call step,what,commands). In the commands `;` stands between
# them, never `&&`: a command that fails before an `&&` ends nothing.
step = @started=$$SECONDS; printf '\n==> %s\n' '$(1)'; ( set -e; $(2) ); printf '    done in %s s\n' "$$((SECONDS - started))"

# Where it must not part arguments.
comma := ,

# Debian packages, where a file of theirs is not there: $(call debian,file,packages)
debian = if ! compgen -G '$(1)' >/dev/null; then $\
	echo 'installing Debian packages: $(2)'; apt-get -q update >/dev/null; $\
	RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -q install --yes --no-install-recommends $(2) >/dev/null; fi

GENERATED = drafts=$$(mktemp -d); trap 'rm -rf "$$drafts"' EXIT; $\
	$(CRDGEN) chart "$$drafts/crds"; $(CRDGEN) reference "$$drafts/api.md"; $\
	diff -r charts/valv/templates/crds "$$drafts/crds"; diff docs/api.md "$$drafts/api.md"

.PHONY: help
help: ## list what can be made
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{ printf "  %-19s %s\n", $$1, $$2 }'

.PHONY: binaries
binaries: sources
	$(call step,compiling,$(BUILD))

# Asked for at once, and not after minutes of compiling. A cluster that KUBECONFIG names needs no root here.
.PHONY: root
root:
ifndef KUBECONFIG
	@if [ "$$(id -u)" != 0 ]; then \
	missing=$$(comm -23 tests/cluster/packages.txt <(dpkg-query --show --showformat '$${db:Status-Status} $${Package}\n' | sed -n 's/^installed //p' | sort)); \
	printf 'The local cluster makes namespaces and mounts: run this as root.\n'; \
	printf 'It would install these Debian packages: %s\n' "$$(echo $${missing:-none, for all are there})"; exit 1; fi
endif

.PHONY: sources
sources:
	@$(RESTORE)

.PHONY: demo
demo: root binaries ## a real cluster, a journal on it, its backups, a drill that passes and one that must fail
	@$(KEEP); started=$$SECONDS; $(WITH_CLUSTER) $(BINARIES)/demo; printf '\ndemo: PASSED in %s s\n' "$$((SECONDS - started))"

.PHONY: test
test: root ## everything that gates a change
	@$(RESTORE); started=$$SECONDS; trap '$(KEEP)' EXIT; \
	if $(SELF) lint unit docs-check chart-check alerts e2e-all ground-first; \
	then printf '\nmake test: PASSED in %s s\n' "$$((SECONDS - started))"; \
	else printf '\nmake test: FAILED after %s s\n' "$$((SECONDS - started))"; exit 1; fi

.PHONY: test-all
test-all: root ## test, and what takes longer: the demo, every fault of backups and drills, accessibility, measurements, Garage, all of ground
	@started=$$SECONDS; \
	if tests/parts.sh "$(SELF)" test test-cluster race race-large conformance-garage ground; \
	then printf '\nmake test-all: PASSED in %s s\n' "$$((SECONDS - started))"; \
	else printf '\nmake test-all: FAILED after %s s\n' "$$((SECONDS - started))"; exit 1; fi

# What takes longer and needs the cluster, in one.
.PHONY: test-cluster
test-cluster: root binaries
	@$(WITH_CLUSTER) tests/parts.sh "$(SELF)" demo e2e-long axe bench-operator $(if $(KUBECONFIG),,stores)

.PHONY: e2e
e2e: root ## the tests on a real cluster; one of them: make e2e TEST=name; the cluster stays up
	@$(MAKE) e2e-here
	$(call step,taking away what the tests made,$(HARNESS) sweep)

.PHONY: e2e-here
e2e-here:
	@$(MAKE) cluster-up
	$(call step,installing Valv,$(HARNESS) install)
	$(call step,what opens a backup,$(call debian,/usr/bin/age,age); $(call debian,/usr/bin/zstd,zstd))
	$(call step,tests on the cluster,cargo test --quiet --workspace --test e2e -- $(or $(TEST),$(addprefix --skip ,$(E2E_LONG) $(E2E_ALONE))) --test-threads=$(E2E_THREADS) --nocapture)

.PHONY: e2e-long
e2e-long: ## the tests on a real cluster that take long: every fault of stores, clocks, nodes, backups and drills
	@tests/parts.sh "$(SELF)" e2e-side-by-side e2e-alone

.PHONY: e2e-side-by-side
e2e-side-by-side:
	@$(SELF) e2e-here TEST="$(E2E_LONG)" E2E_THREADS=$(E2E_LONG_THREADS)

.PHONY: e2e-alone
e2e-alone:
	@$(SELF) e2e-here TEST="$(E2E_ALONE)"

# Only the local cluster has them. What is written there is locked, and goes with the cluster.
.PHONY: stores
stores: root ## what each identity may do in the local cluster's stores, and what it must not, by real requests
	@$(MAKE) cluster-up
	$(call step,the stores of the cluster,cargo test --quiet --workspace --test stores -- $(TEST) --nocapture)

# What the tests made goes with a cluster that was brought up for them.
.PHONY: e2e-all
e2e-all: root binaries
	@$(WITH_CLUSTER) $(SELF) $(if $(KUBECONFIG),e2e,e2e-here)

.PHONY: ground
ground: root binaries ## the local cluster leaves the host as it was
	$(call step,what the tests look with,$(call debian,/usr/sbin/nft,nftables))
	$(call step,the host before and after a cluster,cargo test --quiet --workspace --test ground -- $(TEST) --test-threads=1 --nocapture)
	@$(CLUSTER) down

.PHONY: ground-first
ground-first:
	@$(MAKE) ground TEST="a_cluster_that_is a_part_that a_server an_interrupted down_leaves"

.PHONY: unit
unit: binaries ## tests that need no cluster (they start PostgreSQL and an S3 server of their own)
	$(call step,a PostgreSQL for the tests of the journal,$(call debian,/usr/lib/postgresql/*/bin/initdb,postgresql))
	$(call step,the tools that restore without Valv,$(call debian,/usr/bin/age,age); $(call debian,/usr/bin/b3sum,b3sum); $(call debian,/usr/bin/curl,curl); $(call debian,/usr/bin/jq,jq); $(call debian,/usr/bin/openssl,openssl); $(call debian,/usr/bin/zstd,zstd))
	$(call step,tests without a cluster,root="$$($(CLUSTER) postgres-root)"; store="$$($(CLUSTER) programs --path versitygw)"; VALV_POSTGRES_ROOT="$$root" VALV_VERSITYGW="$$store" cargo test --quiet --workspace)

.PHONY: lint
lint: sources $(DENY) ## formatting, clippy, licences, generated files
	$(call step,formatting,cargo fmt --all --check)
	$(call step,what is compiled again,.ci/test-sources)
	$(call step,clippy,cargo clippy --quiet --workspace --all-targets -- --deny warnings; cargo clippy --quiet --workspace --test e2e --test ground --test race --test stores -- --deny warnings)
	$(call step,licences and sources,$(DENY) check --hide-inclusion-graph licenses bans sources)
	@$(MAKE) binaries
	$(call step,generated files (make generate writes them anew),$(GENERATED))

.PHONY: advisories
advisories: $(DENY) ## known vulnerabilities (needs the RustSec database)
	$(DENY) check advisories

$(DENY):
	$(call step,building cargo-deny $(DENY_VERSION): 1 min once,cargo install --quiet --locked --profile dev --version $(DENY_VERSION) --root $(CACHE)/tools cargo-deny)

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

.PHONY: conformance
conformance: ## try a bucket of yours, with a backup and a drill: make conformance STORE=file (docs/conformance.md)
	@[ -n "$(STORE)" ] || { echo 'which? make conformance STORE=file, as docs/conformance.md shows'; exit 2; }
	@$(SELF) binaries
	@tests/conformance/run.sh "$(BINARIES)/valv" "$(CLUSTER)" "$(STORE)"

.PHONY: conformance-garage
conformance-garage: root binaries $(GARAGE) ## the same on a Garage that is started for it: it is as docs/conformance.md says
	$(call step,what stands before and beside Garage,$(call debian,/usr/bin/stunnel4,stunnel4); $(call debian,/usr/bin/curl,curl); $(call debian,/usr/bin/openssl,openssl); $(call debian,/usr/sbin/ip,iproute2))
	$(call step,a backup and a drill on Garage $(GARAGE_VERSION),tests/conformance/garage.sh "$(GARAGE)" "$(BINARIES)/valv" "$(CLUSTER)")

# Beside the target folder, not in it: nothing of it is ever used again.
$(GARAGE):
	$(call step,building Garage $(GARAGE_VERSION): 10 min once,build=$$(mktemp -d); trap 'rm -rf "$$build"' EXIT; CARGO_TARGET_DIR="$$build" CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --profile dev --version $(GARAGE_VERSION) --no-default-features --features bundled-libs$(comma)sqlite --root "$(CACHE)/tools/garage-$(GARAGE_VERSION)" garage)

.PHONY: docs-check
docs-check: ## the source's documentation, without a broken link
	$(call step,documentation,RUSTDOCFLAGS="$(DOC_LINTS)" cargo doc --quiet --workspace --no-deps)

.PHONY: chart-check
chart-check: binaries
	$(call step,the chart,helm="$$($(CLUSTER) programs --path helm)"; charts/valv/check.sh "$$helm")

.PHONY: alerts
alerts: ## the alert rules: each fires when it should, and does not when it should not
	$(call step,promtool,$(call debian,/usr/bin/promtool,prometheus))
	$(call step,alert rules,tests/alerts/check.sh promtool)

.PHONY: axe
axe: root ## the journal's pages in a browser, checked for accessibility
	@$(MAKE) cluster-up
	$(call step,installing Valv,$(HARNESS) install)
	$(call step,a browser,$(call debian,/usr/bin/chromium,chromium fonts-dejavu-core); $(call debian,/usr/bin/npm,nodejs npm))
	$(call step,accessibility,tests/journal/axe/run.sh "$(CLUSTER)")

.PHONY: bench
bench: root binaries ## what it costs: the pipeline against pgBackRest (SIZE=4: on 4 GiB); the operator with 51 tenants
	@$(MAKE) race
	@$(WITH_CLUSTER) $(SELF) bench-operator

.PHONY: bench-operator
bench-operator:
	@$(MAKE) cluster-up
	$(call step,measuring,$(BINARIES)/bench)

.PHONY: race
race: root binaries ## the pipeline against pgBackRest (SIZE=4: on 4 GiB; ROUNDS=4)
	$(call step,a race,root="$$($(CLUSTER) race-root)"; store="$$($(CLUSTER) programs --path versitygw)"; VALV_POSTGRES_ROOT="$$root" VALV_VERSITYGW="$$store" VALV_JOURNAL="$(BINARIES)/journal" cargo test --quiet --workspace --test race)

# Once, besides the round that does not count: memory and bytes must be as with 1 GiB.
.PHONY: race-large
race-large:
	@$(MAKE) race SIZE=4 ROUNDS=1

.PHONY: cluster-up
cluster-up: root binaries ## bring the local cluster up (with KUBECONFIG set: use that one)
	$(call step,the cluster,$(CLUSTER) ready)

.PHONY: cluster-down
cluster-down: $(if $(wildcard $(CLUSTER)),,binaries) ## take it down: nothing of it is left
	$(CLUSTER) down

.PHONY: images
images: binaries ## write the image archives, to load into another cluster
	$(CLUSTER) images --out images

.PHONY: clean
clean: ## remove what was built of the workspace (dependencies and the cluster's programs: make clean-cache)
	rm -rf images
	cargo clean --workspace

.PHONY: clean-cache
clean-cache: cache-is-ours cluster-down ## remove the cache, which takes the cluster down: the next run is a cold one
	rm -rf -- "$(CACHE)"
	@printf 'kept, for they are yours: Go builds in %s, Go modules in %s, crates in %s\n' \
	"$$(go env GOCACHE)" "$$(go env GOMODCACHE)" "$${CARGO_HOME:-$$HOME/.cargo}"

# Whoever sets VALV_CACHE to a folder with something else in it keeps that.
.PHONY: cache-is-ours
cache-is-ours:
	@[ ! -d "$(CACHE)" ] || others=$$(ls -A "$(CACHE)" | grep -vxE 'images|lock|log|programs|roots|target|tools' || true); \
	[ -z "$${others:-}" ] || { printf '%s is not only the cache, and stays: it has in it\n%s\n' "$(CACHE)" "$$others"; exit 1; }
