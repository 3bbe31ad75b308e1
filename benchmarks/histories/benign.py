# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens on servers without any attack: each kind is a workload, and mostly an event that changes much of it at once."""

from __future__ import annotations

from typing import Callable, Iterator, NamedTuple, Optional

from . import binary, hosts, lives, text
from .lives import KIB, Life, name, span
from .scene import Tree, step

TEXTS = (".txt", ".md", ".html", ".csv", ".json", ".py", ".js", ".c", ".h", ".go", ".php", ".css", ".conf", ".xml", ".svg")
_SOURCES = (".py", ".js", ".c", ".h", ".go")


class Kind(NamedTuple):
    """One of the lives, and on some day an event; `daily`: on each day from then on."""

    lives: tuple[Life, ...]
    event: Optional[Callable[[Tree], None]] = None
    daily: bool = False


# ---- lives that only matter here


def quiet(tree: Tree) -> Iterator[None]:
    """Next to nothing happens."""
    life = tree.dice.choice((lives.office, lives.developer, lives.cloud))(tree)
    step(life)
    while True:
        yield
        if tree.dice.random() < 0.3:
            tree.write("notes.txt", text.prose(tree.dice, 2000))


def plain_site(tree: Tree) -> Iterator[None]:
    """Its build learns to compress on some day."""
    plain, compressed = lives.site(tree, False), None
    when = tree.dice.randint(2, 6)
    step(plain)
    while True:
        yield
        if tree.day < when:
            step(plain)
        else:
            compressed = compressed or lives.site(tree, True)
            step(compressed)


def rotation(tree: Tree) -> Iterator[None]:
    """The logs of many services, all rotated in one night; the older ones are compressed."""
    dice = tree.dice
    services, often, delayed = [name(dice) for _time in range(dice.randint(20, 60))], dice.randint(1, 4), dice.random() < 0.5
    ending, pack = dice.choice(((".gz", binary.gz), (".xz", binary.xz)))
    while True:
        for base in services:
            if tree.day % often == 0:
                for number in range(6, 0, -1):
                    for path in tree.files(f"log/{base}.log.{number}{ending}"):
                        tree.rename(path, f"log/{base}.log.{number + 1}{ending}")
                for path in tree.files(f"log/{base}.log.1"):
                    if path.endswith(".log.1"):
                        tree.write(f"log/{base}.log.2{ending}", pack(tree.read(path)))
                        tree.remove(path)
                for path in tree.files(f"log/{base}.log"):
                    if path.endswith(".log"):
                        tree.write(f"log/{base}.log.1{'' if delayed else ending}", tree.read(path) if delayed else pack(tree.read(path)))
                        tree.remove(path)
                for path in tree.files(f"log/{base}.log.7"):
                    tree.remove(path)
            old = tree.read(f"log/{base}.log") if tree.exists(f"log/{base}.log") else b""
            tree.write(f"log/{base}.log", old + text.log(dice, span(dice, 300, 6000), tree.day))
        yield


def databases(tree: Tree) -> Iterator[None]:
    """An application with some SQLite databases."""
    dice = tree.dice
    for number in range(dice.randint(3, 9)):
        tree.write(f"db/{text.word(dice)}{number}.sqlite", binary.database(dice, span(dice, 200, 2500)))
    for _time in range(dice.randint(50, 90)):
        tree.write(f"app/{name(dice)}.py", text.source(dice, span(dice, 300, 9000)), 200)
    while True:
        yield
        for path in tree.some(0.5, "db/"):
            tree.edit(path, lambda data: binary.altered(data, binary.insertion(dice, 20)))


def archive(tree: Tree) -> Iterator[None]:
    """An office with a folder of tables that is a third to three quarters of all."""
    life = lives.office(tree)
    step(life)
    for number in range(int(len(tree.files()) * tree.dice.uniform(0.5, 3))):
        tree.write(f"archive/{number:04d}.csv", text.table(tree.dice, span(tree.dice, 800, 20_000)), 500 - number)
    while True:
        yield
        step(life)


def dependencies(tree: Tree) -> Iterator[None]:
    """A checkout with many modules: up to 45% of its files."""
    life = lives.developer(tree)
    step(life)
    share = tree.dice.uniform(0.3, 0.45)
    there, others = len(tree.files("node_modules/")), len(tree.files())
    for number in range(max(0, int((share * others - there) / (1 - share)))):
        lives.module(tree, f"node_modules/{text.word(tree.dice)}-{number}", 100)
    while True:
        yield
        step(life)


def passwords(tree: Tree) -> Iterator[None]:
    """A password store: small files, each encrypted."""
    dice = tree.dice
    for _time in range(dice.randint(55, 150)):
        tree.write(f"{text.word(dice)}/{name(dice)}.gpg", binary.gpg(dice, span(dice, 60, 900)), dice.randrange(900))
    tree.write(".gpg-id", b"0123456789ABCDEF\n")
    while True:
        yield
        for path in tree.some(0.01):
            tree.write(path, binary.gpg(dice, span(dice, 60, 900)))


def container(tree: Tree) -> Iterator[None]:
    """An image that has been unpacked, under a name made of its hash."""
    hosts.install(tree, "6.1.0-18", ".ko")
    for _time in range(40):
        tree.write(f"app/{name(tree.dice)}.jar", binary.jar(tree.dice, span(tree.dice, 4 * KIB, 30 * KIB)))
    while True:
        yield
        tree.write("app/state.json", text.records(tree.dice, 3000))


def returned(tree: Tree) -> Iterator[None]:
    """Much is changed on one day, and some days later the state from before is restored."""
    dice = tree.dice
    life = dice.choice((lives.office, lives.developer, lives.cloud))(tree)
    step(life)
    changed, back = dice.randint(2, 4), dice.randint(5, 7)
    old: dict[str, bytes] = {}
    while True:
        yield
        if tree.day == changed:
            old = {path: tree.read(path) for path in tree.files()}
            lives.rework(tree, tree.some(dice.uniform(0.1, 0.6)))
            for path in tree.some(0.3, "", _SOURCES):
                tree.edit(path, lambda data: text.source(dice, len(data)))
            for _time in range(int(len(old) * dice.uniform(0, 0.6))):
                lives.document(tree, "new")
        if tree.day == back:
            for path in set(tree.files()) - set(old):
                tree.remove(path)
            tree.tidy()
            for path, data in old.items():
                if not tree.exists(path) or tree.read(path) != data:
                    tree.write(path, data, back - changed)
        step(life)


# ---- events


def photo_import(tree: Tree) -> None:
    dice, count = tree.dice, int(len(tree.files()) * tree.dice.uniform(1, 4))
    for number in range(count):
        tree.write(f"import/{number:05d}.JPG", binary.jpeg(dice, span(dice, 8 * KIB, 25 * KIB)))


def retag(tree: Tree) -> None:
    for path in tree.files("", (".JPG", ".jpg")):
        tree.edit(path, lambda data: binary.relabelled(data, name(tree.dice).encode()))


def reencode(tree: Tree) -> None:
    """A tool makes all pictures smaller, in place."""
    for path in tree.files("", (".JPG", ".jpg")):
        tree.write(path, binary.jpeg(tree.dice, int(tree.size(path) * tree.dice.uniform(0.5, 0.9))))


def by_date(tree: Tree) -> None:
    for number, path in enumerate(tree.files("", (".JPG", ".mp4"))):
        tree.rename(path, f"{path.rpartition('/')[0]}/2025-{1 + number // 28 % 12:02d}-{1 + number % 28:02d}_{number:05d}.{path.rpartition('.')[2].lower()}")


def shrink(tree: Tree) -> None:
    for path in tree.files("db/"):
        tree.edit(path, lambda data: binary.altered(data, [("DELETE FROM items WHERE id % 5", []), ("VACUUM", [])]))


def upgrade(tree: Tree) -> None:
    hosts.install(tree, "6.12.0-3", ".ko.xz", tree.dice.uniform(0.7, 1))


def next_image(tree: Tree) -> None:
    upgrade(tree)
    hosts.install(tree, "6.12.0-3", ".ko.xz", 1)
    for path in tree.files("app/", (".jar",)):
        tree.write(path, binary.jar(tree.dice, tree.size(path)))
    if tree.dice.random() < 0.5:
        into_folder(tree)


def expunge(tree: Tree) -> None:
    found = tree.files("", ("S", ","))
    for path in tree.dice.sample(found, int(len(found) * tree.dice.uniform(0.3, 0.45))):
        tree.remove(path)


def clean(tree: Tree) -> None:
    for path in tree.some(0.02):
        tree.remove(path)
    tree.tidy()


def without_modules(tree: Tree) -> None:
    tree.drop("node_modules")


def _texts(tree: Tree, ends: tuple[str, ...], change: Callable[[bytes], bytes]) -> None:
    for path in tree.files("", ends):
        if ".git/" not in path:
            tree.edit(path, change)


def replace_word(tree: Tree) -> None:
    old, new = (text.word(tree.dice).encode() for _time in range(2))
    _texts(tree, _SOURCES, lambda data: data.replace(old, new).replace(b"self.", new + b"."))


def license_header(tree: Tree) -> None:
    head = b"# " + text.prose(tree.dice, 400)
    _texts(tree, _SOURCES, lambda data: head + data)


def line_ends(tree: Tree) -> None:
    _texts(tree, TEXTS, lambda data: data.replace(b"\n", b"\r\n"))


def utf16(tree: Tree) -> None:
    _texts(tree, TEXTS, lambda data: data.decode("utf-8", "replace").encode("utf-16"))


def into_folder(tree: Tree) -> None:
    above = f"{name(tree.dice)}-{tree.dice.getrandbits(32):08x}"
    for path in tree.files():
        tree.rename(path, f"{above}/{path}")
    tree.tidy()


def rename_folders(tree: Tree) -> None:
    tops = sorted({path.split("/")[0] for path in tree.files() if "/" in path})
    for top in tops:
        if tree.dice.random() < 0.8:
            tree.move(top, f"{top}-{text.word(tree.dice)}")
    tree.tidy()


def pack_archive(tree: Tree) -> None:
    ending, pack = tree.dice.choice(((".gz", binary.gz), (".xz", binary.xz), (".zst", binary.zst)))
    for path in tree.files("archive/", (".csv",)):
        tree.write(path + ending, pack(tree.read(path)))
        tree.remove(path)


def shelve(tree: Tree) -> None:
    """Projects that are over become one archive: up to 45% of the files."""
    most = 0.45 * len(tree.files())
    for folder in tree.folders():
        found = tree.files(folder + "/")
        if folder and len(found) <= most and tree.dice.random() < 0.7:
            most -= len(found)
            data = binary.archive(tree.dice, {path: tree.read(path) for path in found})
            tree.drop(folder)
            tree.write(f"{folder}.zip", data)


def new_repository(tree: Tree) -> None:
    """From now on the workload also keeps backups of other machines."""
    for _time in range(len(tree.files())):
        mark = f"{tree.dice.getrandbits(256):064x}"
        tree.write(f"restic/data/{mark[:2]}/{mark}", binary.noise(tree.dice, span(tree.dice, 4 * KIB, 25 * KIB)))


def rekey(tree: Tree) -> None:
    for path in tree.files("", (".gpg",)):
        tree.write(path, binary.gpg(tree.dice, max(30, tree.size(path) - 530)))


def encrypt_all(tree: Tree) -> None:
    """The owner encrypts everything but what is in use."""
    ending, maker = tree.dice.choice(((".gpg", binary.gpg), (".age", binary.age), (".enc", binary.noise)))
    for path in tree.files():
        if not path.endswith((".db", ".log")):
            data = maker(tree.dice, tree.size(path) + 64)
            tree.remove(path)
            tree.write(path + ending, data)


def encrypt_new_key(tree: Tree) -> None:
    for path in tree.files("files/"):
        tree.write(path, binary.noise(tree.dice, tree.size(path)))


KINDS = {
    "quiet server": Kind((quiet,)),
    "web application": Kind((lives.webapp,)),
    "hashed site": Kind((lives.site,)),
    "first compressed build": Kind((plain_site,)),
    "plain dumps": Kind((hosts.dumps(("",)),)),
    "packed dumps": Kind((hosts.dumps((".gz", ".xz", ".bz2", ".zst")),)),
    "dumps in directories": Kind((hosts.dumps(("dir",)),)),
    "encrypted dumps": Kind((hosts.dumps((".gpg", ".age")),)),
    "dumps become gz": Kind((hosts.dumps(("",), (".gz", ".xz", ".bz2")),)),
    "dumps become zst": Kind((hosts.dumps(("", ".gz"), (".zst",)),)),
    "log rotation": Kind((rotation,)),
    "photo import": Kind((lives.photos, lives.office, lives.cloud), photo_import),
    "photos retagged": Kind((lives.photos,), retag),
    "photos re-encoded": Kind((lives.photos, lives.cloud), reencode),
    "photos by date": Kind((lives.photos,), by_date),
    "SQLite vacuum": Kind((databases,), shrink),
    "PostgreSQL": Kind((hosts.postgres,)),
    "PostgreSQL vacuum": Kind((hosts.postgres,), hosts.vacuum),
    "system upgrade": Kind((hosts.system,), upgrade),
    "next container image": Kind((container,), next_image),
    "git": Kind((lives.developer,)),
    "git gc": Kind((lives.developer,), lives.collect),
    "mail": Kind((lives.mailbox,)),
    "mail expunged": Kind((lives.mailbox,), expunge),
    "slow clean-up": Kind((lives.office, lives.mailbox, lives.cloud), clean, True),
    "cache": Kind((hosts.cache,)),
    "modules removed": Kind((dependencies,), without_modules),
    "search and replace": Kind((lives.developer,), replace_word),
    "licence headers": Kind((lives.developer, lives.webapp), license_header),
    "line ends": Kind((lives.developer, lives.office, archive), line_ends),
    "UTF-16": Kind((lives.developer, lives.office, archive), utf16),
    "into a folder": Kind((lives.office, lives.developer, lives.photos), into_folder),
    "folders renamed": Kind((lives.office, lives.photos, lives.cloud), rename_folders),
    "archive packed": Kind((archive,), pack_archive),
    "projects shelved": Kind((lives.office,), shelve),
    "encrypted store": Kind((hosts.vault,)),
    "inbox to vault": Kind((hosts.inbox,)),
    "nested repository": Kind((hosts.repository,)),
    "new nested repository": Kind((lives.office, lives.cloud), new_repository),
    "virtual machines": Kind((hosts.machines,)),
    "small, replaced": Kind((hosts.small,)),
    "checkpoints": Kind((hosts.science,)),
    "passwords re-keyed": Kind((passwords,), rekey),
    "old state restored": Kind((returned,)),
}

#: What nothing tells from an attack but its owner: a brake may take it for one, and is not held to it.
BEYOND = {
    "encryption switched on": Kind((lives.office, lives.cloud, lives.photos), encrypt_all),
    "dumps become encrypted": Kind((hosts.dumps(("", ".gz"), (".gpg", ".age")),)),
    "encrypted store, new key": Kind((hosts.vault,), encrypt_new_key),
}
