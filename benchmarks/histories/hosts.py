# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workloads of machines: databases, dumps, systems, images, repositories of other tools, caches."""

from __future__ import annotations

import random
from typing import Iterator

from . import binary, text
from .lives import KIB, Life, document, name, span
from .scene import Tree


def postgres(tree: Tree) -> Iterator[None]:
    """A data directory: some large relations, many small ones."""
    dice = tree.dice
    for number in range(dice.randint(60, 160)):
        pages = dice.choice((0, 1, 1, 2, 2, 3, 5)) if number > 5 else dice.randint(40, 120)
        tree.write(f"base/{16384 + number % 3}/{16_400 + number}", binary.relation(dice, pages), dice.randrange(300))
    for number in range(4):
        tree.write(f"pg_wal/{number:024X}", _wal(tree))
    tree.write("postgresql.conf", text.setting(dice, 20_000), 300)
    tree.write("PG_VERSION", b"15\n", 300)
    tree.write("global/pg_control", binary.noise(dice, 300) + bytes(7892))
    turn = 4
    while True:
        yield
        for path in tree.some(dice.uniform(0.03, 0.2), "base/"):
            pages = tree.size(path) // 8192
            if pages:
                at = dice.randrange(pages) * 8192
                tree.edit(path, lambda data, at=at: data[:at] + binary.relation(dice, 1) + data[at + 8192 :])
        for path in tree.files("pg_wal/")[:2]:
            tree.remove(path)
            tree.write(f"pg_wal/{turn:024X}", _wal(tree))
            turn += 1
        if tree.files("global/pg_control"):
            tree.write("global/pg_control", binary.noise(dice, 300) + bytes(7892))


def _wal(tree: Tree) -> bytes:
    return b"\x10\xd1\5\0\1\0\0\0" + binary.relation(tree.dice, 12)[8:]


def vacuum(tree: Tree) -> None:
    """VACUUM FULL: every relation gets a new number, and is smaller."""
    shift = tree.dice.randrange(1000, 9000)
    for path in tree.files("base/"):
        folder, _slash, number = path.rpartition("/")
        pages = tree.size(path) // 8192
        tree.remove(path)
        tree.write(f"{folder}/{int(number) + shift}", binary.relation(tree.dice, max(min(pages, 1), pages // 3)))


#: What becomes of a dump.
FORMS = {
    "": lambda dice, data: data, ".gz": lambda _dice, data: binary.gz(data), ".zst": lambda _dice, data: binary.zst(data),
    ".xz": lambda _dice, data: binary.xz(data), ".bz2": lambda _dice, data: binary.bz(data), ".gpg": lambda dice, data: binary.gpg(dice, len(data) // 4),
    ".age": lambda dice, data: binary.age(dice, len(data) // 4),
}  # fmt: skip


def dump_of(tree: Tree, base: str, form: str, size: int, day: int) -> None:
    data = text.dump(tree.dice, size)
    if form == "dir":
        for number, at in enumerate(range(0, len(data), max(1, len(data) // 5))):
            tree.write(f"{base}-{day:03d}/{3000 + number}.dat.gz", binary.gz(data[at : at + len(data) // 5]))
        tree.write(f"{base}-{day:03d}/toc.dat", b"PGDMP\1\x0e\0" + text.setting(tree.dice, 4000))
    else:
        tree.write(f"{base}-{day:03d}.sql{form}", FORMS[form](tree.dice, data))


def dumps(forms: tuple[str, ...], later: tuple[str, ...] = ()) -> Life:
    """Dated dumps of some databases, of each the last few. `later`: the form that is switched to, on some day."""

    def life(tree: Tree) -> Iterator[None]:
        dice = tree.dice
        form, other, when = dice.choice(forms), dice.choice(later or forms), dice.randint(4, 7)
        bases = [f"{name(dice)}/{text.word(dice)}" for _time in range(dice.randint(4, 12))]
        sizes = {base: span(dice, 4 * KIB, 50 * KIB) for base in bases}
        least = -(-60 // len(bases))  # enough files for the brake to judge
        kept = dice.randint(least, max(least, 14))
        days = list(range(100 - kept, 100))
        for day in days:
            for base in bases:
                dump_of(tree, base, form, sizes[base], day)
        while True:
            yield
            days.append(days[-1] + 1)
            if len(days) > kept:
                old = days.pop(0)
                for base in bases:
                    for path in tree.files(f"{base}-{old:03d}"):
                        tree.remove(path)
                tree.tidy()
            for base in bases:
                dump_of(tree, base, other if later and tree.day >= when else form, int(sizes[base] * dice.uniform(0.95, 1.1)), days[-1])

    return life


def system(tree: Tree) -> Iterator[None]:
    """A root file system in small, with its logs."""
    dice = tree.dice
    install(tree, "6.1.0-18", ".ko")
    for _time in range(dice.randint(40, 90)):
        tree.write(f"etc/{text.word(dice)}/{name(dice)}.conf", text.setting(dice, span(dice, 100, 5000)), dice.randrange(700))
    tree.write("etc/ssh/ssh_host_ed25519_key", b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + text.prose(dice, 300), 700)
    tree.write("var/lib/random-seed", binary.noise(dice, 512))
    while True:
        yield
        logs(tree)
        for path in tree.some(0.01, "etc/"):
            tree.edit(path, lambda data: data + text.setting(dice, 80))


def logs(tree: Tree) -> None:
    """Logs grow, and once a week they are rotated and compressed."""
    dice = tree.dice
    for base in ("var/log/syslog", "var/log/auth.log", "var/log/nginx/access.log"):
        if tree.day % 7 == 3 and tree.files(base):
            for number in range(4, 0, -1):
                for path in tree.files(f"{base}.{number}.gz"):
                    tree.rename(path, f"{base}.{number + 1}.gz")
            if base in tree.files(base):
                tree.write(f"{base}.1.gz", binary.gz(tree.read(base)))
                tree.remove(base)
        old = tree.read(base) if base in tree.files(base) else b""
        tree.write(base, old + text.log(dice, span(dice, 500, 6000), tree.day))
    tree.write("var/log/journal/system.journal", binary.journal(dice, 30_000 + 2000 * (tree.day % 5)))


def install(tree: Tree, kernel: str, ending: str, share: float = 1.0) -> None:
    """Programs, libraries, modules, manuals and compiled Python; of those that are there already, a share is written anew."""
    dice = tree.dice
    there = [path for path in tree.files("usr/") + tree.files("lib/") if "/modules/" not in path]
    for path in there:
        if dice.random() < share:
            sort = binary.compiled if path.endswith(".pyc") else text.prose if "/doc/" in path else binary.elf
            if path.endswith(".gz"):
                tree.write(path, binary.gz(text.prose(dice, 6000)))
            else:
                tree.write(path, sort(dice, max(200, int(tree.size(path) * dice.uniform(0.9, 1.2)))))
    if not there:
        for number in range(dice.randint(30, 70)):
            tree.write(f"usr/bin/{name(dice)}", binary.elf(dice, span(dice, 8 * KIB, 60 * KIB)), 400)
            tree.write(f"usr/lib/x86_64-linux-gnu/lib{name(dice)}.so.{number}", binary.elf(dice, span(dice, 8 * KIB, 60 * KIB)), 400)
            tree.write(f"usr/share/man/man1/{name(dice)}{number}.1.gz", binary.gz(text.prose(dice, span(dice, 1000, 12_000))), 400)
            tree.write(f"usr/lib/python3/__pycache__/{name(dice)}{number}.pyc", binary.compiled(dice, span(dice, 1000, 8000)), 400)
            tree.write(f"usr/share/doc/{name(dice)}{number}/copyright", text.prose(dice, span(dice, 500, 5000)), 400)
    for path in tree.files("lib/modules/"):
        tree.remove(path)
    tree.tidy()
    for number in range(60):
        data = binary.elf(dice, span(dice, 6 * KIB, 40 * KIB))
        tree.write(f"lib/modules/{kernel}/kernel/drivers/{name(dice)}{number}{ending}", binary.xz(data) if ending.endswith(".xz") else data, 1)


def science(tree: Tree) -> Iterator[None]:
    """Measurements, and checkpoints of a model of which the last five stay."""
    dice = tree.dice
    for number in range(dice.randint(50, 120)):
        ending, maker = dice.choice((("npy", binary.array), ("csv", text.table), ("raw", binary.floats), ("json", text.records), ("csv.gz", _packed)))
        tree.write(f"runs/{number // 12:03d}/{name(dice)}.{ending}", maker(dice, span(dice, 2 * KIB, 60 * KIB)), 400 - number)
    for step in range(8):
        tree.write(f"checkpoints/step-{step:04d}/model.pt", binary.model(dice, 90 * KIB))
        tree.write(f"checkpoints/step-{step:04d}/optimizer.bin", binary.floats(dice, 60 * KIB))
    step = 8
    while True:
        yield
        for _time in range(dice.randint(1, 4)):
            tree.write(f"checkpoints/step-{step:04d}/model.pt", binary.model(dice, 90 * KIB))
            tree.write(f"checkpoints/step-{step:04d}/optimizer.bin", binary.floats(dice, 60 * KIB))
            tree.drop(f"checkpoints/step-{step - 8:04d}")
            step += 1
        tree.write(f"runs/new/{name(dice)}-{tree.day}.csv", text.table(dice, 20_000))


def _packed(dice: random.Random, size: int) -> bytes:
    return binary.gz(text.table(dice, size * 3))


def machines(tree: Tree) -> Iterator[None]:
    """Disk images, all of which are written to every day; some are encrypted from within."""
    dice = tree.dice
    names = [name(dice) for _time in range(dice.randint(3, 10))]
    for path in names:
        ending, maker = ("luks.img", binary.luks) if dice.random() < 0.25 else ("qcow2", binary.disk)
        tree.write(f"images/{path}.{ending}", maker(dice, span(dice, 256 * KIB, 900 * KIB)), 50)
        tree.write(f"{path}.xml", text.html(dice, 3000), 90)
    while True:
        yield
        for path in tree.files("images/"):
            at = dice.randrange(1, max(2, tree.size(path) // 65_536)) * 65_536
            new = (binary.noise if path.endswith(".img") else binary.disk)(dice, 66_048)[512:]
            tree.edit(path, lambda data, at=at, new=new: data[:at] + new + data[at + 65_536 :])


def repository(tree: Tree) -> Iterator[None]:
    """Backups of other machines by restic or borg; pruned every few days: packs are replaced by others."""
    dice = tree.dice
    restic, often = dice.random() < 0.5, dice.randint(2, 6)
    number = 0

    def add(count: int) -> None:
        nonlocal number
        for _time in range(count):
            number += 1
            if restic:
                mark = f"{dice.getrandbits(256):064x}"
                tree.write(f"data/{mark[:2]}/{mark}", binary.noise(dice, span(dice, 8 * KIB, 50 * KIB)))
            else:
                tree.write(f"data/0/{number}", binary.segment(dice, span(dice, 8 * KIB, 50 * KIB)))

    add(dice.randint(60, 150))
    tree.write("config", binary.noise(dice, 155) if restic else text.setting(dice, 300), 300)
    tree.write("keys/0", text.records(dice, 450), 300)
    while True:
        yield
        add(dice.randint(1, 6))
        if restic:
            tree.write(f"snapshots/{dice.getrandbits(256):064x}", binary.noise(dice, 400))
        if tree.day % often == 0:
            old = tree.some(dice.uniform(0.05, 0.35), "data/")
            for path in old:
                tree.remove(path)
            add(len(old) * 2 // 3)
            tree.tidy()


def vault(tree: Tree) -> Iterator[None]:
    """What was always encrypted, by an application that says so in a header or not; files come, go and change."""
    dice = tree.dice
    head = dice.choice((b"", b"HBEGIN:cipher:AES-256-CTR:keyFormat:hash2:encoding:binary:HEND".ljust(8192, b"-")))
    names = [f"files/{dice.getrandbits(8):02x}/{dice.getrandbits(64):016x}" for _time in range(dice.randint(60, 200))]
    for path in names:
        tree.write(path, head + binary.noise(dice, span(dice, 500, 30_000)), dice.randrange(400))
    tree.write("master.conf", text.records(dice, 600), 400)
    while True:
        yield
        for _time in range(dice.randint(1, 12)):
            tree.write(f"files/{dice.getrandbits(8):02x}/{dice.getrandbits(64):016x}", head + binary.noise(dice, span(dice, 500, 30_000)))
        for path in tree.some(0.03, "files/"):
            tree.write(path, head + binary.noise(dice, tree.size(path)))
        for path in tree.some(0.02, "files/"):
            tree.remove(path)
        tree.tidy()


def inbox(tree: Tree) -> Iterator[None]:
    """Scans come in, and a few each day are encrypted and filed away."""
    dice = tree.dice
    for _time in range(dice.randint(60, 120)):
        document(tree, "inbox", dice.randrange(60))
    for number in range(dice.randint(20, 80)):
        tree.write(f"vault/{number:05d}.pdf.age", binary.age(dice, span(dice, 4 * KIB, 40 * KIB)), 90)
    number = 500
    rate = dice.randint(2, 6)
    while True:
        yield
        for path in tree.files("inbox/")[:rate]:
            tree.write(f"vault/{number:05d}.{path.rpartition('.')[2]}.age", binary.age(dice, tree.size(path)))
            tree.remove(path)
            number += 1
        for _time in range(rate + dice.randint(-1, 1)):
            document(tree, "inbox")


def cache(tree: Tree) -> Iterator[None]:
    """A spool beside a few files that stay: between 50 and 600 entries, as it comes."""
    dice = tree.dice
    for _time in range(40):
        tree.write(f"etc/{name(dice)}{dice.randrange(99)}", text.setting(dice, 900), 300)
    while True:
        wanted = span(dice, 50, 600)
        there = tree.files("spool/")
        for path in there[wanted:]:
            tree.remove(path)
        for _time in range(wanted - len(there)):
            maker = dice.choice((text.html, text.records, binary.jpeg, _packed))
            tree.write(f"spool/{dice.getrandbits(4):x}/{dice.getrandbits(48):012x}", maker(dice, span(dice, 200, 3000)))
        yield


def small(tree: Tree) -> Iterator[None]:
    """Fewer than 50 files, all of which are replaced again and again: settings, keys, certificates."""
    dice = tree.dice
    names = [f"{text.word(dice)}{number}" for number in range(dice.randint(3, 40))]
    while True:
        for path in names:
            ending, maker = dice.choice((("key", binary.key), ("conf", text.setting), ("json", text.records), ("gpg", binary.gpg), ("bin", binary.elf)))
            for old in tree.files(f"{path}."):
                tree.remove(old)
            tree.write(f"{path}.{ending}", maker(dice, span(dice, 100, 5000)))
        yield
        if dice.random() < 0.5:
            yield
