# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attacks: what is chosen, what becomes of it, under which name, how fast. Life goes on beside them."""

from __future__ import annotations

import base64
import random
from typing import Callable, Iterator, NamedTuple, Optional

from . import benign, binary, hosts, lives, text
from .lives import Life
from .scene import Tree

BLOCK = 4096
Attack = Callable[[Tree], Iterator[None]]
Cipher = Callable[[random.Random, bytes], bytes]


class Kind(NamedTuple):
    """One of the lives, and an attack. `slow`: the history goes on until 60% of the files are gone; `more`: for so many further runs, since the attack
    destroys nothing at first."""

    lives: tuple[Life, ...]
    attack: Attack
    slow: bool = False
    more: int = 0


# ---- what becomes of a file


def whole(dice: random.Random, data: bytes) -> bytes:
    return dice.randbytes(len(data))


def footed(dice: random.Random, data: bytes) -> bytes:
    """With the file's key, encrypted, at its end."""
    return dice.randbytes(len(data) + 512)


def first(size: int) -> Cipher:
    return lambda dice, data: dice.randbytes(min(size, len(data))) + data[size:]


def alternate(dice: random.Random, data: bytes) -> bytes:
    """Every other block, from the first on."""
    blocks = range(0, len(data), BLOCK)
    return b"".join(dice.randbytes(len(data[at : at + BLOCK])) if at // BLOCK % 2 == 0 else data[at : at + BLOCK] for at in blocks)


def sized(maker: binary.Maker) -> Cipher:
    return lambda dice, data: maker(dice, len(data))


def packed(maker: binary.Maker) -> Cipher:
    """Compressed first: smaller than it was."""
    return lambda dice, data: maker(dice, len(binary.gz(data)))


def base64_text(dice: random.Random, data: bytes) -> bytes:
    return base64.encodebytes(dice.randbytes(len(data) + 16))


def hex_text(dice: random.Random, data: bytes) -> bytes:
    return dice.randbytes(len(data) + 16).hex().encode()


def zeros(_dice: random.Random, data: bytes) -> bytes:
    return bytes(len(data))


def one_byte(dice: random.Random, data: bytes) -> bytes:
    return bytes([dice.choice((0xFF, 0x55, 0x41))]) * len(data)


def empty(_dice: random.Random, _data: bytes) -> bytes:
    return b""


# ---- what is chosen, in which order


def everything(tree: Tree) -> list[str]:
    found = tree.files()
    tree.dice.shuffle(found)
    return found


def documents(tree: Tree) -> list[str]:
    return tree.files("", (".docx", ".xlsx", ".pdf", ".txt", ".csv", ".md", ".jpg", ".JPG", ".png", ".mp4", ".zip"))


def pictures(tree: Tree) -> list[str]:
    return tree.files("", (".jpg", ".JPG"))


def dumps(tree: Tree) -> list[str]:
    return tree.files("", (".gz", ".xz", ".bz2", ".zst", ".sql"))


def one_folder(tree: Tree) -> list[str]:
    """The smallest of the top directories that has a third of all files, or else the largest one."""
    if not tree.target:
        counts: dict[str, int] = {}
        for path in tree.files():
            if "/" in path:
                top = path.partition("/")[0] + "/"
                counts[top] = counts.get(top, 0) + 1
        ranked = sorted((count, top) for top, count in counts.items())
        tree.target = next((top for count, top in ranked if count >= len(tree.files()) / 3), ranked[-1][1])
    return tree.files(tree.target)


def oldest(tree: Tree) -> list[str]:
    found = sorted(tree.files(), key=tree.age, reverse=True)
    return found[: max(1, int(len(found) * 0.6))]


def newest_first(tree: Tree) -> list[str]:
    return sorted(tree.files(), key=tree.age)


# ---- under which name

Namer = Callable[[random.Random], Callable[[str], str]]


def same(_dice: random.Random) -> Callable[[str], str]:
    return lambda path: path


def suffix(*endings: str) -> Namer:
    """One of them, or five letters that are this victim's own."""

    def namer(dice: random.Random) -> Callable[[str], str]:
        ending = dice.choice(endings) if endings else "." + "".join(dice.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=5))
        return lambda path: path + ending

    return namer


def each_its_own(dice: random.Random) -> Callable[[str], str]:
    return lambda path: f"{path}.{dice.getrandbits(32):08x}"


def random_names(dice: random.Random) -> Callable[[str], str]:
    return lambda path: f"{path.rpartition('/')[0] or 'x'}/{dice.getrandbits(96):024x}"


def other_ending(ending: str) -> Namer:
    return lambda _dice: lambda path: f"{path.rpartition('.')[0] or path}{ending}" if "." in path.rpartition("/")[2] else path + ending


# ---- attacks


def encrypter(
    cipher: Cipher, pick: Callable[[Tree], list[str]] = everything, names: Namer = same, pace: float = 1.0, note: Optional[bool] = None, decoys: bool = False
) -> Attack:
    """`pace`: the share of the files that it takes in each run. A note in each directory: as given, or by chance where files are renamed."""

    def attack(tree: Tree) -> Iterator[None]:
        dice = tree.dice
        name, keep_time, resident = names(dice), dice.random() < 0.4, pace < 1 or dice.random() < 0.5
        with_note = dice.random() < 0.7 if note is None and names is not same else bool(note)
        letter = f"Your files are encrypted. Pay to {dice.getrandbits(128):032x}.\n".encode() + text.prose(dice, 800)
        while True:
            # An empty file that stays empty is not harmed, and what has no bytes to encrypt is passed over.
            found = [path for path in pick(tree) if tree.size(path)]
            count = max(1, int((len(tree.files()) + len(tree.victims)) * pace + dice.random()))
            for path in found[:count]:
                tree.spoil(path, cipher(dice, tree.read(path)), name(path), keep_time)
                if with_note:
                    tree.put(f"{path.rpartition('/')[0] or '.'}/HOW_TO_DECRYPT.txt", letter)
            for number in range(dice.randint(2, 8) if decoys else 0):
                tree.put(f"{lives.name(dice)}-{number}.decoy.txt", text.prose(dice, lives.span(dice, 500, 8000)))
            yield
            while not resident:
                yield

    return attack


def copier(tree: Tree) -> Iterator[None]:
    """Encrypted copies first; the originals go one to three runs later."""
    dice = tree.dice
    ending = dice.choice((".enc", ".crypt", ".locked"))
    found = tree.files()
    for path in found:
        tree.put(path + ending, dice.randbytes(tree.size(path) + 64))
    for _time in range(dice.randint(1, 3)):
        yield
    for path in tree.files():
        if path not in found:  # what has come since
            tree.put(path + ending, dice.randbytes(tree.size(path) + 64))
        tree.spoil(path, None)
    while True:
        yield


def deleter(least: float, most: float, pace: float = 1.0, junk: Optional[binary.Maker] = None) -> Attack:
    """Takes away a share of all files; `junk` fills the place."""

    def attack(tree: Tree) -> Iterator[None]:
        dice = tree.dice
        found = everything(tree)
        left = int(len(found) * dice.uniform(least, most) + 0.5)
        while True:
            found = everything(tree)
            for path in found[: max(1, min(left, int((len(found) + len(tree.victims)) * pace)))] if left else ():
                tree.spoil(path, None)
                left -= 1
                if junk is not None:
                    tree.put(f"{path.rpartition('/')[0] or '.'}/{dice.getrandbits(48):012x}.tmp", junk(dice, lives.span(dice, 500, 30_000)))
            tree.tidy()
            yield

    return attack


MIXED = (lives.office, lives.cloud, lives.webapp, lives.developer)
PEOPLE = (lives.office, lives.cloud)
ALL = (*MIXED, lives.photos, lives.mailbox, hosts.postgres, hosts.science, hosts.system, benign.databases, benign.archive)

KINDS = {
    "keeps names": Kind(ALL, encrypter(whole)),
    "keeps names, key at the end": Kind(ALL, encrypter(footed, note=True)),
    ".locked": Kind(ALL, encrypter(footed, names=suffix(".locked", ".encrypted", ".crypt"))),
    "random ending": Kind(ALL, encrypter(footed, names=suffix())),
    "an ending for each": Kind(MIXED, encrypter(whole, names=each_its_own)),
    "random names": Kind(ALL, encrypter(footed, names=random_names)),
    "1% a run": Kind((lives.office, lives.photos, lives.mailbox), encrypter(whole, pace=0.01), True),
    "2% a run": Kind((*MIXED, lives.mailbox), encrypter(whole, pace=0.02), True),
    "5% a run": Kind(ALL, encrypter(whole, pace=0.05), True),
    "10% a run": Kind(ALL, encrypter(whole, pace=0.1), True),
    "5% a run, renamed": Kind(ALL, encrypter(footed, names=suffix(".locked", ".enc"), pace=0.05), True),
    "a third a run": Kind(ALL, encrypter(whole, pace=0.34), True),
    "documents only": Kind(PEOPLE, encrypter(footed, documents)),
    "documents only, renamed": Kind(PEOPLE, encrypter(footed, documents, suffix(".locked"))),
    "one folder": Kind(MIXED, encrypter(whole, one_folder)),
    "first 4 KiB": Kind(ALL, encrypter(first(BLOCK))),
    "every other block": Kind(ALL, encrypter(alternate)),
    "first MiB": Kind(ALL, encrypter(first(1 << 20), names=suffix(".lock"))),
    "Salted__": Kind(MIXED, encrypter(sized(binary.salted), names=suffix(".enc", ".aes"))),
    "age": Kind(MIXED, encrypter(sized(binary.age), names=suffix(".age"))),
    "gpg": Kind(MIXED, encrypter(packed(binary.gpg), names=suffix(".gpg"))),
    "gpg, names kept": Kind(MIXED, encrypter(packed(binary.gpg))),
    "encrypted zip": Kind(MIXED, encrypter(packed(binary.locked_zip), names=other_ending(".zip"))),
    "7z": Kind(MIXED, encrypter(packed(binary.seven), names=suffix(".7z"))),
    "base64": Kind(MIXED, encrypter(base64_text, names=suffix(".locked", ".b64"))),
    "hex": Kind(MIXED, encrypter(hex_text)),
    "copies, then deletes": Kind(ALL, copier, more=3),
    "the older ones": Kind(ALL, encrypter(whole, oldest)),
    "the newest first": Kind(ALL, encrypter(whole, newest_first, pace=0.2), True),
    "JPEGs": Kind((lives.photos,), encrypter(whole, pictures)),
    "JPEGs, renamed": Kind((lives.photos,), encrypter(footed, pictures, suffix())),
    "packed dumps": Kind((hosts.dumps((".gz", ".xz", ".zst")),), encrypter(whole, dumps)),
    "packed dumps, renamed": Kind((hosts.dumps((".gz", "dir", "")),), encrypter(footed, dumps, suffix())),
    "data of PostgreSQL": Kind((hosts.postgres,), encrypter(whole)),
    "mail": Kind((lives.mailbox,), encrypter(whole)),
    "with decoys": Kind(ALL, encrypter(whole, decoys=True)),
    "deletes all": Kind(ALL, deleter(1, 1)),
    "deletes most": Kind(ALL, deleter(0.6, 0.95)),
    "deletes 5% a run": Kind(ALL, deleter(0.9, 1, 0.05), True),
    "deletes 10% a run": Kind(ALL, deleter(0.9, 1, 0.1), True),
    "truncates": Kind(ALL, encrypter(empty)),
    "zeros": Kind(ALL, encrypter(zeros)),
    "one byte over all": Kind(ALL, encrypter(one_byte)),
    "zeros, 5% a run": Kind(ALL, encrypter(zeros, pace=0.05), True),
    "deletes, leaves noise": Kind(ALL, deleter(0.8, 1, 1.0, binary.noise)),
    "deletes, leaves texts": Kind(ALL, deleter(0.8, 1, 1.0, text.prose)),
}

#: What a brake can hardly see, and what it is not held to: few files, files that looked encrypted before, and next to no speed.
BEYOND = {
    "disk images": Kind((hosts.machines,), encrypter(first(1 << 18), names=suffix(".vmlock"))),
    "disk images, names kept": Kind((hosts.machines,), encrypter(alternate)),
    "encrypted store": Kind((hosts.vault,), encrypter(whole)),
    "nested repository": Kind((hosts.repository,), encrypter(whole)),
    "spool": Kind((hosts.cache,), deleter(0.5, 0.9)),
    "1% a run, of a lively tree": Kind((lives.developer, hosts.postgres), encrypter(whole, pace=0.01), True),
}
