# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workloads with people: what lies there, and what happens to it from day to day.

A life is a generator: by its first step the tree is built, and each further one is a day. It goes on with what is whole.
"""

from __future__ import annotations

import math
import random
from typing import Callable, Iterator

from . import binary, text
from .scene import Tree

Life = Callable[[Tree], Iterator[None]]
KIB = 1 << 10


def span(dice: random.Random, low: float, high: float) -> int:
    """A size: each doubling as likely as the next."""
    return int(math.exp(dice.uniform(math.log(low), math.log(high))))


def name(dice: random.Random) -> str:
    return f"{text.word(dice)}-{text.word(dice)}"


def _sheet(dice: random.Random, size: int) -> bytes:
    return binary.archive(dice, {"xl/workbook.xml": b"<workbook/>", "xl/worksheets/sheet1.xml": text.table(dice, size * 3)})


#: What people keep: ending, how often, how it is made, from and to which size.
DOCUMENTS = (
    ("docx", 20, binary.docx, 4 * KIB, 40 * KIB), ("pdf", 18, binary.pdf, 6 * KIB, 60 * KIB), ("xlsx", 10, _sheet, 3 * KIB, 25 * KIB),
    ("txt", 10, text.prose, 100, 12 * KIB), ("csv", 6, text.table, 500, 40 * KIB), ("md", 5, text.markup, 200, 8 * KIB),
    ("jpg", 14, binary.jpeg, 8 * KIB, 70 * KIB), ("png", 7, binary.png, 2 * KIB, 30 * KIB), ("mp4", 1, binary.mp4, 80 * KIB, 300 * KIB),
    ("zip", 2, binary.jar, 5 * KIB, 50 * KIB), ("html", 3, text.html, 1 * KIB, 15 * KIB),
)  # fmt: skip
_MAKERS = {ending: (maker, low, high) for ending, _often, maker, low, high in DOCUMENTS}


def document(tree: Tree, folder: str, age: int = 0) -> None:
    dice = tree.dice
    ending, _often, maker, low, high = dice.choices(DOCUMENTS, [row[1] for row in DOCUMENTS])[0]
    tree.write(f"{folder}/{name(dice)}-{dice.randrange(1000)}.{ending}", maker(dice, span(dice, low, high)), age)


def rework(tree: Tree, found: list[str]) -> None:
    """People save documents again: the same sort, about the same size."""
    for path in found:
        made = _MAKERS.get(path.rpartition(".")[2])
        if made:
            tree.write(path, made[0](tree.dice, max(64, int(tree.size(path) * tree.dice.uniform(0.8, 1.3)))))


def office(tree: Tree) -> Iterator[None]:
    """A file server."""
    dice = tree.dice
    folders = [f"{department}/{name(dice)}" for department in ("accounting", "projects", "sales", "staff") for _time in range(dice.randint(2, 5))]
    for _time in range(dice.randint(80, 300)):
        document(tree, dice.choice(folders), dice.randrange(900))
    for folder in folders[::4]:
        tree.write(f"{folder}/.keep", b"")
    while True:
        yield
        for _time in range(dice.randint(0, 4)):
            document(tree, dice.choice(folders))
        rework(tree, tree.some(dice.uniform(0, 0.02)))
        for path in tree.some(0.003):
            tree.remove(path)


def cloud(tree: Tree) -> Iterator[None]:
    """Homes of users, with previews of their pictures and a database."""
    dice = tree.dice
    users = [text.word(dice) + str(number) for number in range(dice.randint(2, 5))]
    for _time in range(dice.randint(70, 220)):
        document(tree, f"data/{dice.choice(users)}/files/{dice.choice(('Documents', 'Photos', 'Notes', 'Shared'))}", dice.randrange(700))
    for number in range(dice.randint(10, 60)):
        tree.write(f"data/appdata/preview/{number % 16:x}/{dice.getrandbits(40):x}.jpg", binary.jpeg(dice, span(dice, 1500, 9000)), dice.randrange(500))
    tree.write("data/owncloud.db", binary.database(dice, 200))
    tree.write("data/nextcloud.log", text.records(dice, 30_000))
    while True:
        yield
        for _time in range(dice.randint(0, 5)):
            document(tree, f"data/{dice.choice(users)}/files/Documents")
        rework(tree, tree.some(0.01, "data/", (".docx", ".xlsx", ".txt", ".md")))
        for path in tree.files("data/owncloud.db"):
            tree.edit(path, lambda data: binary.altered(data, binary.insertion(dice, 5)))
        for path in tree.files("data/nextcloud.log"):
            tree.edit(path, lambda data: data + text.records(dice, 2000))


def photos(tree: Tree) -> Iterator[None]:
    dice = tree.dice
    for number in range(dice.randint(60, 180)):
        folder = f"{2018 + number // 25}/{1 + number // 3 % 12:02d}"
        ending, data = ("mp4", binary.mp4(dice, 150 * KIB)) if dice.random() < 0.03 else ("JPG", binary.jpeg(dice, span(dice, 12 * KIB, 60 * KIB)))
        tree.write(f"{folder}/{dice.choice(('IMG', 'DSC'))}_{1000 + number}.{ending}", data, 2000 - number * 5)
    tree.write("catalog.db", binary.database(dice, 150))
    while True:
        yield
        for _time in range(dice.choice((0, 0, 1, 4))):
            tree.write(f"2026/{1 + tree.day // 9:02d}/IMG_{dice.randrange(5000, 99_999)}.JPG", binary.jpeg(dice, span(dice, 12 * KIB, 60 * KIB)))
        for path in tree.files("catalog.db"):
            tree.edit(path, lambda data: binary.altered(data, binary.insertion(dice, 3)))


def message(tree: Tree, folder: str, age: int = 0) -> None:
    dice = tree.dice
    flags = dice.choice(("S", "S", "RS", "", "FS"))
    tree.write(f"{folder}/cur/{1_740_000_000 + dice.randrange(9_999_999)}.M{dice.randrange(10**6)}P{dice.randrange(9999)}.host:2,{flags}",
               text.mail(dice, span(dice, 700, 20_000)), age)  # fmt: skip


def mailbox(tree: Tree) -> Iterator[None]:
    dice = tree.dice
    folders = [f"{user}/Maildir{folder}" for user in ("ada", "bob", "eve")[: dice.randint(1, 3)] for folder in ("", "/.Sent", "/.Archive", "/.Lists")]
    for folder in folders:
        tree.write(f"{folder}/dovecot.index", binary.noise(dice, 40) + bytes(800))
        tree.write(f"{folder}/dovecot-uidlist", text.setting(dice, 2000))
        tree.write(f"{folder}/maildirfolder", b"")
    for _time in range(dice.randint(120, 420)):
        message(tree, dice.choice(folders), dice.randrange(800))
    while True:
        yield
        for _time in range(dice.randint(1, 12)):
            message(tree, dice.choice(folders))
        for path in tree.some(0.01):  # read by now
            if path.endswith(":2,"):
                tree.rename(path, path + "S")
        for path in tree.some(0.004):
            tree.remove(path)
        for path in tree.files("", ("dovecot.index",)):
            tree.write(path, binary.noise(dice, 40) + bytes(800 + dice.randrange(100)))


# ---- builders of software


def module(tree: Tree, folder: str, age: int = 0) -> None:
    dice = tree.dice
    ending = dice.choice(("py", "py", "js", "c", "h", "go"))
    tree.write(f"{folder}/{text.word(dice)}{dice.randrange(100)}.{ending}", text.source(dice, span(dice, 200, 12_000)), age)


def _objects(tree: Tree, count: int) -> None:
    dice = tree.dice
    for _time in range(count):
        path, data = binary.loose(text.source(dice, span(dice, 150, 6000)), dice.choice(("blob", "blob", "tree", "commit")))
        tree.write(f".git/objects/{path}", data)


def collect(tree: Tree) -> None:
    """git gc: loose objects into one pack."""
    found = [path for path in tree.files(".git/objects/") if "/pack/" not in path]
    old = tree.files(".git/objects/pack/")
    data = binary.git_pack([tree.read(path) for path in [*found, *(path for path in old if path.endswith(".pack"))]])
    for path in [*found, *old]:
        tree.remove(path)
    tree.tidy()
    mark = f"{tree.dice.getrandbits(160):040x}"
    tree.write(f".git/objects/pack/pack-{mark}.pack", data)
    tree.write(f".git/objects/pack/pack-{mark}.idx", b"\xfftOc\0\0\0\2" + binary.noise(tree.dice, 24 * len(found) + 1100))


def developer(tree: Tree) -> Iterator[None]:
    """A checkout with its git, compiled files and dependencies."""
    dice = tree.dice
    folders = [f"src/{name(dice)}" for _time in range(dice.randint(4, 9))]
    for _time in range(dice.randint(60, 150)):
        module(tree, dice.choice(folders), dice.randrange(300))
    for path in tree.some(0.3, "src/", (".py",)):
        folder, _slash, file = path.rpartition("/")
        tree.write(f"{folder}/__pycache__/{file[:-3]}.cpython-311.pyc", binary.compiled(dice, span(dice, 1000, 9000)))
    for number in range(dice.randint(20, 60)):
        module(tree, f"node_modules/{text.word(dice)}{number}", 200)
    _objects(tree, dice.randint(60, 160))
    tree.write(".git/HEAD", b"ref: refs/heads/main\n")
    tree.write(".git/index", b"DIRC\0\0\0\2" + binary.noise(dice, 3000))
    tree.write("__init__.py", b"")
    while True:
        yield
        for path in tree.some(dice.uniform(0, 0.08), "src/", (".py", ".js", ".c", ".go")):
            tree.edit(path, lambda data: data[: len(data) * 2 // 3] + text.source(dice, 400))
        for _time in range(dice.randint(0, 3)):
            module(tree, dice.choice(folders))
        _objects(tree, dice.randint(2, 14))
        if tree.files(".git/index"):
            tree.write(".git/index", b"DIRC\0\0\0\2" + binary.noise(dice, 3000))


_PARTS = (("html", text.html), ("php", text.source), ("js", text.script), ("css", text.style), ("png", binary.png), ("woff2", binary.woff), ("svg", text.html))


def release(tree: Tree, number: int, count: int, base: dict[str, bytes]) -> None:
    """A release has most of its files in common with the one before; those stay in `base`."""
    dice = tree.dice
    for _time in range(count if not base else max(1, count // 8)):
        ending, maker = dice.choice(_PARTS)
        base[f"{dice.choice(('app', 'public', 'lib', 'themes'))}/{name(dice)}.{ending}"] = maker(dice, span(dice, 300, 15_000))
    if len(base) > count:
        for path in dice.sample(sorted(base), len(base) - count):
            del base[path]
    for path, data in base.items():
        tree.write(f"releases/{number}/{path}", data)
    tree.link("current", f"releases/{number}")


def webapp(tree: Tree) -> Iterator[None]:
    """Releases of which three stay, uploads, a database and logs."""
    dice = tree.dice
    base: dict[str, bytes] = {}
    count, often = dice.randint(40, 110), dice.uniform(0.2, 0.7)
    numbers = [20_260_101]
    release(tree, numbers[0], count, base)
    for _time in range(dice.randint(20, 90)):
        document(tree, "shared/uploads", dice.randrange(400))
    tree.write("shared/app.sqlite", binary.database(dice, 300))
    tree.write("shared/.env", text.setting(dice, 600))
    while True:
        yield
        if dice.random() < often:
            numbers.append(numbers[-1] + 1)
            release(tree, numbers[-1], count, base)
            if len(numbers) > 3:
                tree.drop(f"releases/{numbers.pop(0)}")
        for _time in range(dice.randint(0, 3)):
            document(tree, "shared/uploads")
        for path in tree.files("shared/app.sqlite"):
            tree.edit(path, lambda data: binary.altered(data, binary.insertion(dice, 10)))
        tree.write(f"shared/log/{tree.day:03d}.log", text.log(dice, 8000, tree.day))


def site(tree: Tree, compressed: bool = True) -> Iterator[None]:
    """A static site whose build names files by their content."""
    dice = tree.dice
    sources = {f"{name(dice)}.{ending}": maker(dice, span(dice, 800, 20_000)) for ending, maker in _PARTS for _time in range(dice.randint(6, 16))}
    while True:
        for path in tree.files("dist/"):
            tree.remove(path)
        assets(tree, sources, compressed)
        yield
        share = dice.choice((0.1, 0.3, 1.0))
        for path in dice.sample(sorted(sources), int(len(sources) * share)):
            sources[path] = dict(_PARTS)[path.rpartition(".")[2]](dice, span(dice, 800, 20_000))


def assets(tree: Tree, sources: dict[str, bytes], compressed: bool) -> None:
    for path, data in sources.items():
        stem, _dot, ending = path.rpartition(".")
        target = f"dist/{path}" if ending == "html" else f"dist/assets/{stem}.{hash_of(data)}.{ending}"
        tree.write(target, data)
        if compressed and ending in ("html", "js", "css", "svg"):
            tree.write(target + ".gz", binary.gz(data))
            tree.write(target + ".br", binary.br(data))


def hash_of(data: bytes) -> str:
    return binary.loose(data)[0].replace("/", "")[:8]
