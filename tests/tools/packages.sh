#!/usr/bin/env bash
# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Install the Debian packages of tests/packages.txt that are missing. Without root or a network, say which ones stay missing: tests that use them
# skip. `packages.sh all` fails then, where it is root.
set -euo pipefail
list=$(dirname "${BASH_SOURCE[0]}")/../packages.txt

lacking() { # of a sort of package: "wanted", "needed" or both
    local sort name
    while read -r sort name _; do
        [[ $sort =~ ^($1)$ ]] || continue
        [[ $(dpkg-query -W -f '${Status}' "$name" 2>/dev/null) == 'install ok installed' ]] || printf '%s\n' "$name"
    done <"$list"
}

command -v dpkg-query >/dev/null || { echo 'packages: not a Debian machine; tests whose tools are missing skip.'; exit 0; }
mapfile -t missing < <(lacking 'needed|wanted')
((${#missing[@]})) || exit 0

if ((EUID == 0)); then
    echo "packages: apt-get installs ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    said=$( { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } 2>&1 </dev/null) ||
        printf 'packages: apt-get failed:\n%s\n' "$(tail -n 5 <<<"$said")" >&2
    mapfile -t missing < <(lacking 'needed|wanted')
    ((${#missing[@]})) || exit 0
    [[ ${1-} != all ]] || exit 1
    why='apt-get could not install them'
else
    why='not root'
fi
echo "packages: missing (${why}): ${missing[*]}; the tests that use them skip. As root: apt-get install ${missing[*]}" >&2
mapfile -t missing < <(lacking needed)
if ((${#missing[@]})); then
    echo "packages: nothing runs without ${missing[*]}" >&2
    exit 1
fi
