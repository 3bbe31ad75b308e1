# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# `make check` is for every edit, `make test` for every commit that leaves this machine. Each gate of tests/tools/gates.py is also a target.
# Made here is .cache alone; environments and images lie in the user's cache, for all checkouts.

SHELL := /bin/bash
.SHELLFLAGS := -e -u -o pipefail -c
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

GATES := lint docs site build importer unit module system crash rigs hosts fresh \
    sanity-oldest sanity-newest units-oldest units-newest integration-oldest integration-newest
ENVIRONMENT = $$(python3 tests/tools/environments.py $(1))
DEMO := $(CURDIR)/.cache/demo
headline = @printf '\n=== %s: %s\n' $@ '$(strip $(1))'

.PHONY: test check test-long $(GATES)
test: packages
	@python3 tests/tools/gates.py test
check:
	@python3 tests/tools/gates.py check
test-long: packages
	@python3 tests/tools/gates.py long
$(GATES):
	@python3 tests/tools/gates.py $@

.PHONY: packages
packages:
	@tests/tools/packages.sh

$(DEMO)/venv/.stamp: tests/requirements/demo.txt
	python3 -m venv $(DEMO)/venv
	$(DEMO)/venv/bin/python -m pip install -qq --disable-pip-version-check --no-cache-dir -r $<
	touch $@

.PHONY: demo
# Not a gate: shows what the collection does, on a directory of this machine. Needs python3 with venv and make, nothing else.
demo: export HOME := $(CURDIR)/.cache/home
demo: export PATH := $(DEMO)/venv/bin:$(PATH)
demo: export ANSIBLE_COLLECTIONS_PATH := $(DEMO)/collections
demo: export ANSIBLE_REMOTE_TMP := $(DEMO)/tmp
demo: export ANSIBLE_CALLBACK_RESULT_FORMAT := yaml
demo: export LC_ALL := C.UTF-8
demo: $(DEMO)/venv/.stamp
	$(call headline, ansible-galaxy builds the collection and installs it)
	@rm -rf $(DEMO)/collections $(DEMO)/*.tar.gz
	@ansible-galaxy collection build --output-path $(DEMO) $(CURDIR)
	@ansible-galaxy collection install --offline -p $(DEMO)/collections $(DEMO)/*.tar.gz
	$(call headline, ansible-playbook backs up and restores)
	@ansible-playbook -i localhost, -e work=$(DEMO)/work tests/demo/demo.yml
	@printf '%s\n' '' 'Go on with its store:' '' \
	    '  cd $(DEMO)/work' '  ./volt-backup list --store store --backup-dir records' '' 'Remove it, and the Ansible of the demo:' '' '  rm -r $(DEMO)'

.PHONY: changelog
# Not a gate: writes the changelog of the version in galaxy.yml anew, from the fragments and the modules there are.
changelog:
	@"$(call ENVIRONMENT,tools)"/bin/antsibull-changelog release --reload-plugins --update-existing

.PHONY: clean
clean:
	rm -rf .cache
