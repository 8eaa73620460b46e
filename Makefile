# slurm-enclave. `make help` lists the targets.

GO        ?= go
BIN       := bin
TOOLS     := .cache/tools
LINT_VERSION := v2.15.0
LINT      := $(TOOLS)/golangci-lint-$(LINT_VERSION)
PREFIX    ?= /usr
SYSCONF   ?= /etc
SLURMLIB  ?= $(PREFIX)/lib/x86_64-linux-gnu/slurm-wlm
UNITS     ?= $(PREFIX)/lib/systemd/system
LIBEXEC   := $(PREFIX)/libexec/slurm-enclave
# The simulator belongs to the lab.
MANPAGES  := $(filter-out enclave-tsm.8,$(notdir $(wildcard docs/man/*.[1-8])))
SAMPLES   := $(shell cd etc && find . -type f -not -name '*.go' | sed 's,^\./,,' | LC_ALL=C sort)
DOCUMENTS := $(shell cd docs && find . -name '*.md' | sed 's,^\./,,' | LC_ALL=C sort)
VERSION   := $(shell cat VERSION)
# The release is compiled into every program, so that the ground check can tell a plugin of another.
LDFLAGS   := -s -w -X github.com/slurm-enclave/slurm-enclave/internal/release.Version=$(VERSION)
PROGRAMS  := enclave enclaved enclave-keeper enclave-view enclave-lab enclave-tsm enclave-prolog enclave-epilog
CWARN     := -std=gnu11 -Wall -Wextra -Werror -Wformat=2 -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
CHARDEN   := -O2 -fPIC -fvisibility=hidden -fstack-protector-strong -D_FORTIFY_SOURCE=2
SPANK_C   := $(wildcard spank/*.c)
SPANK_H   := $(wildcard spank/*.h)

.PHONY: help leak escape failures build plugin test test-unit test-asan test-e2e test-vm matrix isolation nightly lint bench bench-scale soak demo install install-files uninstall deps tools clean fuzz

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## build    all programs and both shared objects, into bin/
build: $(PROGRAMS:%=$(BIN)/%) $(BIN)/enclave.so $(BIN)/libenclave-submit.so $(BIN)/pingpong $(BIN)/payload $(BIN)/payload-mpich

GO_SOURCES := $(shell find cmd internal prolog epilog etc \( -name '*.go' -o -name '*.sh' \) -not -name '*_test.go' 2>/dev/null) go.mod go.sum $(wildcard etc/*) VERSION

$(BIN)/enclave $(BIN)/enclaved $(BIN)/enclave-keeper $(BIN)/enclave-view $(BIN)/enclave-lab $(BIN)/enclave-tsm: $(BIN)/%: $(GO_SOURCES)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/$*

$(BIN)/enclave-prolog $(BIN)/enclave-epilog: $(BIN)/enclave-%: $(GO_SOURCES)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./$*

$(BIN)/enclave.so: $(SPANK_C) $(SPANK_H) spank/enclave.map VERSION
	@mkdir -p $(BIN)
	$(CC) $(CWARN) $(CHARDEN) -DENCLAVE_VERSION='"$(VERSION)"' -shared -o $@ $(SPANK_C) \
		-Wl,--version-script=spank/enclave.map -Wl,-z,relro,-z,now,-z,noexecstack

$(BIN)/libenclave-submit.so: $(wildcard spank/submit/*.go spank/submit/route/*.go) spank/abi.h $(GO_SOURCES)
	CGO_ENABLED=1 $(GO) build -trimpath -buildmode=c-shared -ldflags '$(LDFLAGS)' -o $@ ./spank/submit
	@rm -f $(BIN)/libenclave-submit.h

$(BIN)/pingpong $(BIN)/payload: $(BIN)/%: scripts/mpi/%.c
	@mkdir -p $(BIN)
	mpicc -O2 -Wall -Wextra -Werror -o $@ $<

$(BIN)/payload-mpich: scripts/mpi/payload.c
	@mkdir -p $(BIN)
	mpicc.mpich -O2 -Wall -Wextra -Werror -o $@ $<

# What depends on Slurm's and MPI's headers: enclave-lab builds it in the root of another suite.
plugin: $(BIN)/enclave.so $(BIN)/libenclave-submit.so $(BIN)/pingpong $(BIN)/payload

## test     everything: units, attacks, the plugin under the address sanitizer, the lab
test: build
	scripts/test

## matrix   the end-to-end suite on Slurm 22.05, 24.11 and 26.05, two side by side; SUITES='trixie forky' RUN=PATTERN AT_ONCE=2
matrix: build
	scripts/matrix

## isolation  the end-to-end tests of storage.isolation: namespace, on Slurm 24.11; RUN=PATTERN
isolation: build
	scripts/isolation

## nightly  matrix, isolation, failures, soak and long fuzzing, some hours; writes docs/nightly.md. SUITES= AT_ONCE=1 RUN= FAILURES= JOBS=200 SUITE= FUZZTIME=5m
nightly: build
	scripts/nightly

## leak     attempts to get a job's data past the tunnel, and a neighbour's into it, with counts and controls
leak: build
	scripts/leak

## failures the failures of docs/failures.md, one by one in a lab, and what came of each; half an hour. RUN=PATTERN
failures: build
	scripts/failures

## escape   the attempts to get out of a job, at data, gate, keys and the next job, one by one, with controls
escape: build
	scripts/escape

## test-vm  machines with Debian's cloud kernel under QEMU: kernel WireGuard, cgroup v2
test-vm: build
	scripts/test-vm

## lint     golangci-lint, clang-format, shellcheck, gcc -Werror
lint: $(LINT)
	$(LINT) run ./...
	clang-format --dry-run -Werror $(SPANK_C) $(SPANK_H) $(wildcard scripts/mpi/*.c)
	shellcheck .ci/run scripts/deps scripts/demo scripts/test scripts/test-vm scripts/leak scripts/escape scripts/failures scripts/bench scripts/fuzz scripts/matrix scripts/isolation scripts/nightly scripts/soak internal/host/vmtest/init.sh internal/bench/measure.sh internal/lab/suite/build.sh internal/lab/suite/plugin.sh etc/prolog-slurmctld etc/epilog-slurmctld
	for f in $(SPANK_C); do $(CC) $(CWARN) -O2 -fanalyzer -DENCLAVE_VERSION='"$(VERSION)"' -fsyntax-only $$f || exit 1; done

$(LINT):
	@mkdir -p $(TOOLS)
	GOBIN=$(abspath $(TOOLS)) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	mv $(TOOLS)/golangci-lint $@

## bench    sbatch to rank start in cpu and in cpu-sev, interleaved; the prolog's phases
bench: build
	scripts/bench

## bench-scale  enclaved and N nodes (1000): from the last evidence to the last GO; SCALE='--straggler 2s --profile DIR', see enclave-lab(8)
bench-scale: $(BIN)/enclave-lab
	@mkdir -p .cache/scale
	$(BIN)/enclave-lab scale --nodes $(or $(N),1000) --dir .cache/scale $(SCALE)

## soak     JOBS=200 in cpu-sev, one by one and in bursts (TOGETHER=20) with cancels: drained nodes, leftovers, receipts; SUITE=trixie
soak: build
	scripts/soak

## demo     install what is missing, lab up, a real MPI job in cpu-sev, its report, lab down
demo: deps
	$(MAKE) build
	scripts/demo

## deps     install from Debian what is missing
deps:
	scripts/deps

## install  DESTDIR= PREFIX= SYSCONF= SLURMLIB= UNITS=; keeps configuration that is there. With another PREFIX edit the samples and units, too
install: build
	$(MAKE) install-files

install-files:
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(LIBEXEC) $(DESTDIR)$(SLURMLIB) \
		$(DESTDIR)$(SYSCONF)/slurm-enclave $(DESTDIR)$(UNITS)
	install -m 0755 $(BIN)/enclave $(DESTDIR)$(PREFIX)/bin/
	install -m 0755 $(BIN)/enclaved $(DESTDIR)$(PREFIX)/sbin/
	install -m 0755 $(BIN)/enclave-prolog $(BIN)/enclave-epilog $(BIN)/enclave-keeper $(BIN)/enclave-view $(BIN)/libenclave-submit.so $(DESTDIR)$(LIBEXEC)/
	install -m 0755 $(BIN)/enclave.so $(DESTDIR)$(SLURMLIB)/
	for wrapper in prolog-slurmctld epilog-slurmctld; do \
		[ -e $(DESTDIR)$(SYSCONF)/slurm-enclave/$$wrapper ] || \
		install -m 0755 etc/$$wrapper $(DESTDIR)$(SYSCONF)/slurm-enclave/ || exit 1; \
	done
	install -m 0644 etc/enclave.lua $(DESTDIR)$(SYSCONF)/slurm-enclave/
	install -m 0644 $(wildcard etc/systemd/*.service etc/systemd/*.timer) $(DESTDIR)$(UNITS)/
	for page in $(MANPAGES); do install -D -m 0644 docs/man/$$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$$page || exit 1; done
	for page in $(DOCUMENTS); do install -D -m 0644 docs/$$page $(DESTDIR)$(PREFIX)/share/doc/slurm-enclave/$$page || exit 1; done
	for sample in $(SAMPLES); do install -D -m 0644 etc/$$sample $(DESTDIR)$(PREFIX)/share/slurm-enclave/samples/$$sample || exit 1; done

## uninstall  DESTDIR= and so on as for install: takes its files away, once Slurm names none of them; keeps configuration and state
CONFIGURED = grep -lsE '^[^\#]*(enclave\.so|enclave-(pro|epi)log|slurm-enclave/(pro|epi)log-slurmctld)' \
	$(addprefix $(DESTDIR)$(SYSCONF)/slurm/,slurm.conf slurm.conf.d/* plugstack.conf plugstack.conf.d/*)
uninstall:
	@if $(CONFIGURED); then \
		echo 'uninstall: Slurm would not start without what these files name: take the lines out of slurm.conf and plugstack.conf, restart its daemons, then again' >&2; exit 1; fi
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/,bin/enclave sbin/enclaved) $(DESTDIR)$(SLURMLIB)/enclave.so $(DESTDIR)$(SYSCONF)/slurm-enclave/enclave.lua
	rm -f $(addprefix $(DESTDIR)$(LIBEXEC)/,enclave-prolog enclave-epilog enclave-keeper enclave-view libenclave-submit.so)
	rm -f $(addprefix $(DESTDIR)$(UNITS)/,$(notdir $(wildcard etc/systemd/*.service etc/systemd/*.timer)))
	rm -f $(foreach page,$(MANPAGES),$(DESTDIR)$(PREFIX)/share/man/man$(subst .,,$(suffix $(page)))/$(page))
	rm -rf $(addprefix $(DESTDIR)$(PREFIX)/share/,slurm-enclave doc/slurm-enclave)
	[ ! -d $(DESTDIR)$(LIBEXEC) ] || rmdir --ignore-fail-on-non-empty $(DESTDIR)$(LIBEXEC)

## fuzz     every fuzz test for FUZZTIME (10s)
fuzz:
	scripts/fuzz

clean:
	rm -rf $(BIN)
