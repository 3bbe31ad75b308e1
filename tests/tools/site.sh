#!/usr/bin/env bash
# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Build the documentation site from the collection in the current directory. Takes the directory to build in; the site is in its html. A warning fails.
set -euo pipefail
place=$1
rm -rf "$place"
mkdir -p "$place/source/reference"
cp -r docs/*.md docs/pictures docs/site/conf.py docs/site/index.md docs/site/ansible.rst "$place/source"
antsibull-docs collection --use-current --squash-hierarchy --fail-on-error --dest-dir "$place/source/reference" volt.backup >"$place/antsibull.log" 2>&1 ||
    { cat "$place/antsibull.log"; exit 1; }
volt_backup() { COLUMNS=90 python -B -m plugins.module_utils._runner "$@"; }
# shellcheck disable=SC2016 # the backquotes are Markdown's
{
    printf '# Commands and options\n\nAs `volt-backup help` prints them.\n'
    volt_backup completion words -- '' | while IFS=$'\t' read -r word _; do
        printf '\n## %s\n\n```text\n%s\n```\n' "$word" "$(volt_backup help "$word")"
    done
} >"$place/source/options.md"
python -m sphinx -q -W --keep-going -b html "$place/source" "$place/html"
echo "The site is $place/html/index.html."
