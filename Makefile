# The front door. Meson and Ninja do the work; every target installs what it needs first.
BUILD ?= build

.PHONY: all run test bench coverage fuzz sim format install clean help

all: $(BUILD)/minka ## build the release binary build/minka

$(BUILD)/build.ninja:
	@tools/deps.sh build
	@meson setup $(BUILD) -Dtests=false >/dev/null || { cat $(BUILD)/meson-logs/meson-log.txt; exit 1; }

.PHONY: $(BUILD)/minka
$(BUILD)/minka: $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet src/minka
	@cp $(BUILD)/src/minka $(BUILD)/minka

run: all ## fetch a small model, serve it, and show eight chats at once
	@python3 tools/demo.py $(BUILD)/minka

test: ## run all tests; ends with "N passed, N failed, N skipped"
	@tools/deps.sh test
	@python3 tools/test.py

bench: all ## measure (ONLY=parts ROUNDS=3 JSON=file); compare with PEERS="name=url ..." ENGINES="name=folder ..." PROGRAMS="path ..."
	@ninja -C $(BUILD) --quiet bench/model_bench bench/kern_bench bench/attend_bench
	@python3 bench/bench.py $(BUILD)/minka $(if $(ONLY),--only $(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(JSON),--json $(JSON)) \
		$(foreach p,$(PEERS),--peer $(p)) $(foreach p,$(ENGINES),--engine $(p)) $(foreach p,$(PROGRAMS),--program $(p))

coverage: ## how many lines of each parser the fuzz corpora run: make coverage T=gguf
	@tools/deps.sh test
	@python3 tools/coverage.py $(T)

fuzz: ## fuzz one target: make fuzz T=gguf S=60
	@tools/fuzz.sh "$(T)" "$(S)"

sim: ## replay one seed of the scheduler simulation: make sim SEED=123
	@tools/deps.sh test
	@test -d build-test || meson setup build-test >/dev/null
	@ninja -C build-test --quiet tests/sim/sim && build-test/tests/sim/sim $(SEED)

format: ## clang-format all sources
	@git ls-files '*.c' '*.h' | xargs clang-format -i

install: PREFIX ?= /usr/local
install: all ## install program and systemd unit to PREFIX (/usr/local) below DESTDIR
	@install -D -m 0755 $(BUILD)/minka $(DESTDIR)$(PREFIX)/bin/minka
	@install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	@sed 's|@BINDIR@|$(PREFIX)/bin|' dist/minka.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/minka.service

clean: ## remove all build folders
	rm -rf build build-test build-asan build-tsan build-fuzz build-cov

help: ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  make %-8s %s\n", $$1, $$2}'
