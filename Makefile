# make run    builds the page and the broker, in release mode, and starts it
# make test   everything that must hold before a change is merged; it installs what it needs (scripts/setup)
#
# Parts of `make test` that can be run alone: test-rust, test-web, test-interop, test-browser, test-readme.

.PHONY: run test setup pages binary test-rust test-web test-interop test-browser test-readme first summary
.NOTPARALLEL:

STEP := scripts/step
NPM := npm --prefix web --no-update-notifier
PAGE_SOURCES := $(shell find web/src web/public -type f) $(wildcard web/*.html web/*.json web/*.config.ts)

# How long each fuzz test runs.
export WIGWAG_FUZZ_SECONDS ?= 60

# Debian has the broker mosquitto in a place that users do not look at.
export PATH := $(PATH):/usr/sbin

# What is built once gains nothing from being prepared for the next time.
ifdef CI
export CARGO_INCREMENTAL := 0
endif

run: pages
	@cargo run --quiet --release

test: first setup pages test-rust test-web test-interop test-browser test-readme summary

first:
	@$(STEP) --first

setup: web/node_modules/.package-lock.json
	@$(STEP) setup scripts/setup

# npm writes this file last.
web/node_modules/.package-lock.json: web/package.json web/package-lock.json
	@$(STEP) npm-ci $(NPM) ci --no-audit --no-fund --loglevel=error
	@touch $@

pages: web/dist/index.html
web/dist/index.html: web/node_modules/.package-lock.json $(PAGE_SOURCES)
	@$(STEP) pages $(NPM) run --silent build -- --logLevel=warn
	@touch $@

test-rust:
	@$(STEP) format cargo fmt --check
	@$(STEP) clippy cargo clippy --quiet --all-targets -- -D warnings
	@RUSTDOCFLAGS=-Dwarnings $(STEP) rustdoc cargo doc --quiet --no-deps
	@$(STEP) build cargo test --quiet --no-run
	@$(STEP) cargo-test cargo test --quiet

test-web: web/node_modules/.package-lock.json
	@$(STEP) typecheck $(NPM) run --silent typecheck
	@$(STEP) lint $(NPM) run --silent lint
	@$(STEP) web-unit $(NPM) run --silent test

# The broker that the following tests start; `cargo test` has built all of it already.
binary:
	@$(STEP) binary cargo build --quiet

test-interop: setup binary
	@$(STEP) python scripts/with-broker target/python/bin/python -m unittest discover -s tests/interop
	@$(STEP) node scripts/with-broker node --test --test-reporter=spec --test-timeout=60000 tests/interop/mqttjs.test.mjs

test-browser: setup pages binary
	@CHROMIUM=$$(scripts/chromium) $(STEP) browser scripts/with-broker --turn $(NPM) run --silent e2e

test-readme: setup pages binary
	@$(STEP) readme scripts/with-broker --default-ports scripts/readme-test
	@$(STEP) readme-services scripts/with-broker --default-ports scripts/readme-test docs/backplane.md

summary:
	@$(STEP) --summary
