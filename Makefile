# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# `make test` runs every gate; each gate is also a target of its own. All that is needed is python3 with venv, make and
# git. Everything made here lies in .venv, .venv-importer and .cache; `make clean` removes it.

SHELL := /bin/bash
.SHELLFLAGS := -e -u -o pipefail -c
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

ROOT := $(CURDIR)
VENV := $(ROOT)/.venv
IMPORTER := $(ROOT)/.venv-importer
SCRATCH := $(ROOT)/.cache
MIRROR := $(SCRATCH)/mirror/ansible_collections/volt/backup
LINK := $(SCRATCH)/link
ARTIFACT := $(SCRATCH)/artifact
DEMO := $(SCRATCH)/demo
INSTALLED := $(SCRATCH)/installed

# Every CPython found that the engine supports, colon separated: the tests run the engine under each.
VOLT_PYTHONS ?= $(shell python3 tests/tools/pythons.py)
export VOLT_PYTHONS := $(VOLT_PYTHONS)

# Ansible wants UTF-8, and a fresh Debian has no locale set.
export LC_ALL := C.UTF-8
export ANSIBLE_COLLECTIONS_PATH := $(SCRATCH)/mirror
export NO_COLOR := 1
unexport ANSIBLE_CONFIG ANSIBLE_HOME PYTHONPATH PYTHONHOME

# The gates run in a home of their own, and on a PATH without pyenv's shims but with every interpreter found.
PATHS = $(VENV)/bin:$(shell printf %s "$$PATH" | tr : '\n' | grep -v '/shims$$' | paste -sd:):$(subst $() ,:,$(dir $(subst :, ,$(VOLT_PYTHONS))))
HERMETIC = HOME=$(SCRATCH)/home PATH=$(PATHS)
headline = @printf '\n=== %s: %s\n' $@ '$(strip $(1))'

.PHONY: test
# From quick to slow; pytest comes last, so that its count of tests closes the output.
test: lint docs build importer sanity units-ansible integration unit

$(VENV)/.stamp: tests/requirements.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install -qq --disable-pip-version-check -r $<
	touch $@

$(IMPORTER)/.stamp: tests/requirements-importer.txt
	python3 -m venv $(IMPORTER)
	$(IMPORTER)/bin/python -m pip install -qq --disable-pip-version-check -r $<
	touch $@

.PHONY: scratch
scratch: $(VENV)/.stamp
	@$(VENV)/bin/python tests/tools/scratch.py $(ROOT) $(SCRATCH)

.PHONY: lint
lint: scratch
	$(call headline, ruff; reuse; antsibull-changelog; ansible-lint with its production profile)
	@cd $(ROOT) && $(HERMETIC) ruff check .
	@cd $(MIRROR) && $(HERMETIC) reuse lint --lines
	@cd $(MIRROR) && $(HERMETIC) antsibull-changelog lint
	@cd $(MIRROR) && $(HERMETIC) ansible-lint --offline --strict

.PHONY: docs
docs: scratch
	$(call headline, antsibull-docs over the documentation of modules and roles)
	@cd $(MIRROR) && $(HERMETIC) antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs self --disallow-unknown-collection-refs .

.PHONY: build
build: scratch
	$(call headline, ansible-galaxy builds the collection and installs it; ansible-doc finds it there)
	@rm -rf $(ARTIFACT) $(INSTALLED)
	@cd $(MIRROR) && $(HERMETIC) ansible-galaxy collection build --output-path $(ARTIFACT)
	@$(HERMETIC) ANSIBLE_COLLECTIONS_PATH=$(INSTALLED) ansible-galaxy collection install --offline -p $(INSTALLED) $(ARTIFACT)/*.tar.gz
	@$(HERMETIC) ANSIBLE_COLLECTIONS_PATH=$(INSTALLED) ansible-doc --type module volt.backup.volt_backup >/dev/null

.PHONY: importer
importer: build $(IMPORTER)/.stamp
	$(call headline, galaxy-importer on the artifact; a warning fails too)
	@cd $(ARTIFACT) && HOME=$(SCRATCH)/home PATH=$(IMPORTER)/bin:$(PATHS) GALAXY_IMPORTER_CHECK_REQUIRED_TAGS=true \
	    python -m galaxy_importer.main *.tar.gz 2>&1 | tee importer.log
	@! grep -E '^(WARNING|ERROR)' $(ARTIFACT)/importer.log

.PHONY: sanity
sanity: scratch
	$(call headline, ansible-test sanity)
	@cd $(MIRROR) && $(HERMETIC) ansible-test sanity --local --color no

.PHONY: units-ansible
units-ansible: scratch
	$(call headline, tests/unit through ansible-test; under the Python of .venv)
	@cd $(MIRROR) && $(HERMETIC) ansible-test units --local --color no \
	    --python "$$($(VENV)/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')"

.PHONY: integration
integration: scratch
	$(call headline, ansible-test integration)
ifeq ($(wildcard tests/integration/targets/*),)
	@echo 'SKIPPED: there are no targets in tests/integration/targets yet.'
else
	@cd $(MIRROR) && $(HERMETIC) ansible-test integration --local --color no --allow-root
endif

.PHONY: unit
# Caches stay where the user has them: the tests keep debootstrapped trees there, from checkout to checkout.
# One file after the other: a host that boots beside a test of power cuts keeps the file system of that mounted in its own namespace.
unit: export XDG_CACHE_HOME ?= $(HOME)/.cache
unit: scratch
	$(call headline, pytest)
	@$(HERMETIC) PYTHONPATH=$(LINK) ANSIBLE_COLLECTIONS_PATH=$(LINK) HYPOTHESIS_STORAGE_DIRECTORY=$(SCRATCH)/hypothesis python -m pytest

$(DEMO)/venv/.stamp: tests/demo/requirements.txt
	python3 -m venv $(DEMO)/venv
	$(DEMO)/venv/bin/python -m pip install -qq --disable-pip-version-check --no-cache-dir -r $<
	touch $@

.PHONY: demo
# Not a gate: shows what the collection does, on a directory of this machine. Needs python3 with venv and make, nothing else.
demo: export HOME := $(SCRATCH)/home
demo: export PATH := $(DEMO)/venv/bin:$(PATH)
demo: export ANSIBLE_COLLECTIONS_PATH := $(DEMO)/collections
demo: export ANSIBLE_REMOTE_TMP := $(DEMO)/tmp
demo: export ANSIBLE_CALLBACK_RESULT_FORMAT := yaml
demo: $(DEMO)/venv/.stamp
	$(call headline, ansible-galaxy builds the collection and installs it)
	@rm -rf $(DEMO)/collections $(DEMO)/*.tar.gz
	@ansible-galaxy collection build --output-path $(DEMO) $(ROOT)
	@ansible-galaxy collection install --offline -p $(DEMO)/collections $(DEMO)/*.tar.gz
	$(call headline, ansible-playbook backs up and restores)
	@env -u NO_COLOR ansible-playbook -i localhost, -e work=$(DEMO)/work tests/demo/demo.yml
	@printf '\n%s\n' 'That was tests/demo/demo.yml. Its store is gone again; Ansible stays in .cache/demo until "make clean".'

.PHONY: changelog
# Not a gate: writes the changelog of the version in galaxy.yml anew, from the fragments and the modules there are.
changelog: $(VENV)/.stamp
	@$(HERMETIC) antsibull-changelog release --reload-plugins --update-existing

.PHONY: clean
clean:
	rm -rf $(VENV) $(IMPORTER) $(SCRATCH)
