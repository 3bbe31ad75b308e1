# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The door to remotes: what modules and the command call."""

from __future__ import annotations

import contextlib
import functools
import socket
import typing as t

from .._backup import acts
from .._backup.catalog import made_at, selects, unreadable, with_state
from .._backup.copies import Copies, Original, copy_on
from .._backup.ids import check_id, check_workload
from .._backup.listing import contents
from .._backup.manager import Manager, no_cycles
from .._backup.names import LATEST
from .._backup.query import Query, accepts
from .._backup.records import CopyRecord, Listed, Sidecar
from .._base import Damaged, Interrupted, NoStore, NotFound, Progress, Standing, Unsupported, UsageError, VoltError, parse_time, show_time, tolerated, unwatched
from . import about, choice, known, names, ours, policy, reading, s3_client, url
from .declared import DOMAIN, Settings, check
from .directory import Directory
from .keys import Keys
from .pace import Pace
from .push import Backup, Pushed, Pusher, PushRequest
from .transport import Transport

if t.TYPE_CHECKING:
    from .._backup.pull import Pulled
    from .._backup.restore import Restored
    from .._backup.search import Search
    from .._backup.verify import Verified, VerifyRequest
    from .._restore.blobs import Blobs
    from .._restore.plan import RestoreRequest
    from .._store.store import Store
    from .origin import RemoteOrigin
    from .sealed import Recovery


def connect(settings: Settings) -> Transport:
    """The transport of a URL; UsageError where it is none that can be used."""
    place = url.parse(settings.url)
    pace = Pace(settings.bandwidth)
    if place.kind == url.DIRECTORY:
        return Directory(place.path, pace)
    from .s3 import S3  # which imports what not every host has

    bucket, classes = s3_client.parse_url(settings.url), settings.storage_class or ""
    return S3(bucket, settings.credentials, ca=settings.ca or "", storage_class=classes, lock=settings.lock, pace=pace, jobs=settings.jobs)


def _keys(settings: Settings, identity: t.Optional[Recovery]) -> Keys:
    if settings.keys is None and identity is None:
        return Keys()
    from .sealed import Sealed, read_host

    if settings.keys is not None:
        return Sealed(read_host(settings.keys), identity)
    return Sealed(t.cast("Recovery", identity).of_host(settings.host or "recovery"), identity)


class Meant(t.NamedTuple):
    """A backup on a remote: by its id, or the newest good one of a workload. Without a host, see `Remote.restore`."""

    host: t.Optional[str] = None
    backup: t.Optional[str] = None
    workload: t.Optional[str] = None


class Which(t.NamedTuple):
    """Which backups are pushed: these; or, without ids, all that the remote does not have, of one workload and type or of all."""

    ids: t.Optional[t.Sequence[str]] = None
    workload: t.Optional[str] = None
    type: t.Optional[str] = None

    @property
    def name(self) -> str:
        """Names the choice, but for the ids."""
        return f"{self.workload}/{self.type}" if self.ids is None else "ids"


@acts.noted(acts.REMOTE, lambda remote: {"remote": remote.transport.where, "store": remote._manager.shown[0]})
class Remote:
    """A remote as this host uses it.

    :param manager: the local backups. :param settings: see `declared.resolve`, which finds them by a name or URL.
    :param identity: the recovery key, to read what is sealed.
    """

    def __init__(self, manager: Manager, settings: Settings, identity: t.Optional[Recovery] = None) -> None:
        self._manager, self._settings, self._keys = manager, check(settings), _keys(settings, identity)
        self.transport = connect(settings)
        #: What a user must know of the last push beside what it did, as sentences.
        self.warnings: t.List[str] = []

    @property
    def host(self) -> str:
        """What this host is called on the remote."""
        named = self._settings.host or self._keys.host
        if self._keys.host not in (None, named):
            raise UsageError(f"The keys are those of host {self._keys.host}, and this host is called {named}; give it keys of its own, or omit the name.")
        return named if named is not None else self._by_store()

    def _by_store(self) -> str:
        store = self._manager.check_store()
        if store is None:
            raise NoStore("This host has no store and so no name on remotes; make a first backup, or give the name.")
        return names.host_name(socket.gethostname(), store[:8])

    def ours(self) -> t.List[str]:
        """What this host is or was called on remotes, as far as it can know."""
        found = ours.called(self._manager)
        with tolerated(VoltError):
            found.append(self._named(None) or self._by_store())
        return found

    def whose(self, host: t.Optional[str]) -> str:
        """The host whose copies are to be judged: the one that was named, or this one; NotFound where it has none.

        No other is taken instead, unlike for `restore`: what is found says something of this host. Nor is an earlier name of this one: its copies are old.
        """
        found = about.read(self.transport)
        about.check(self.transport, found, self._keys, self._settings.id)
        name = host or self._named(None) or next(iter(ours.called(self._manager, found.id)), None)
        with tolerated(VoltError):
            name = name or self._by_store()
        ours.expect(self.transport, name)
        return t.cast(str, name)

    def begin(self, dry: bool = False) -> about.Begun:
        """Make the remote, unless it is there."""
        begun = about.begin(self.transport, self._keys, self._settings.id, dry)
        if begun.about is not None:
            about.check_lock(self.transport, begun.about, self._settings.lock)
        return begun

    def policy(self) -> t.Optional[policy.Policy]:
        """The rights that this host's credentials need; None for a directory."""
        if url.parse(self._settings.url).kind != url.S3:
            return None
        return policy.of_host(s3_client.parse_url(self._settings.url), self.host, self._settings.share == DOMAIN, self._settings.lock)

    def look(self) -> t.Tuple[about.About, t.List[reading.Pushes]]:
        """What the remote is, and what each host has there."""
        found = about.read(self.transport)
        about.check(self.transport, found, self._keys if self._keys.sealed else None, self._settings.id)
        return found, reading.overview(self.transport)

    def push(
        self, which: Which, dry: bool = False, progress: Progress = unwatched, standing: t.Optional[Standing] = None
    ) -> t.List[t.Tuple[Sidecar, t.Optional[Pushed]]]:
        """Push backups, the oldest first. For each its sidecar, and what was done: None where it was there."""
        copies = self._manager.copies
        if dry and not copies.store.exists:
            about.read(self.transport)
            return []  # the first backup is still to be made
        settings = self._settings
        request = PushRequest(
            transport=self.transport, host=self.host, keys=self._keys, jobs=settings.jobs, id=settings.id, choice=which.name,
            lock=settings.lock, share=settings.share == DOMAIN, vetted=settings.vetted, dry=dry,
        )  # fmt: skip
        pusher = Pusher(copies.store, request, lambda *copy: copies.note(pusher.about.id, *copy), progress, standing)
        if which.ids is None:
            found = copies.candidates(which.workload, which.type)
        else:
            found = [copies.find(check_id(backup)) for backup in which.ids]
        done: t.List[t.Tuple[Sidecar, t.Optional[Pushed]]] = []
        try:
            looked = pusher.looks
            failed = self._push_all(copies, pusher, found, which.ids is not None, done)
            if which.ids is None and pusher.looks and not looked:  # a loss came to light meanwhile
                pushed = {sidecar["id"] for sidecar, _pushed in done}
                others = [sidecar for sidecar in copies.candidates(which.workload, which.type) if sidecar["id"] not in pushed]
                failed = self._push_all(copies, pusher, others, False, done)
        except VoltError as error:
            error.details["warnings"] = self.warnings = _losses(self.transport.where, done, pusher.missing, dry)
            error.details["pushed"] = told(done)
            raise
        self.warnings = _losses(self.transport.where, done, pusher.missing, dry)
        if failed:
            what = f"{len(failed)} of {len(failed) + len(done)} backups were not copied"
            raise Damaged(f"{what}: {failed[0].message}", pushed=told(done), warnings=self.warnings)
        if not dry:
            pusher.ended()
        return done

    def _push_all(
        self, copies: Copies, pusher: Pusher, found: t.Sequence[Sidecar], asked: bool, done: t.List[t.Tuple[Sidecar, t.Optional[Pushed]]]
    ) -> t.List[Damaged]:
        """Push what the remote does not have. Those that failed. :param asked: these backups were asked for by their ids. :param done: is added to."""
        there = [_is_there(pusher, sidecar, asked) for sidecar in found]
        failed: t.List[Damaged] = []
        for sidecar, has in zip(found, there):
            try:
                if not has:
                    done.append(self._push_one(copies, pusher, sidecar))
                elif asked:
                    done.append((sidecar, None))
            except (Damaged, NotFound) as error:
                if asked:
                    raise
                if isinstance(error, Damaged):  # it keeps no other from being copied; one that was deleted meanwhile needs no copy
                    failed.append(error)
        return failed

    @staticmethod
    def _push_one(copies: Copies, pusher: Pusher, before: Sidecar) -> t.Tuple[Sidecar, t.Optional[Pushed]]:
        with pusher.alone():
            sidecar = copies.current(before)
            if copy_on(sidecar, pusher.about.id) not in (None, copy_on(before, pusher.about.id)):
                return sidecar, None  # another push has just made the copy
            with copies.opened(sidecar) as original:
                pushed = pusher(_backup(original))
        return copies.current(sidecar), pushed._replace(lost=copy_on(sidecar, pusher.about.id))

    def restore(
        self,
        meant: Meant,
        request: RestoreRequest,
        newest: t.Optional[Query] = None,
        before: t.Optional[str] = None,
        dry: bool = False,
        progress: Progress = unwatched,
        alone: bool = False,
    ) -> t.Tuple[Restored, t.List[t.Dict[str, str]]]:
        """Restore a backup of the remote; also the newer ones that were passed over on the way to it.

        :param newest: for a workload: its type and tags. :param before: for a workload: only backups from before this time.
        :param alone: read nothing from the store of this host, not even what is known of the target, so that the restore shows that the copy is whole.
        """
        from .._backup.restore import Restorer

        if request.link in ("reflink", "hardlink"):
            raise UsageError(f"Files cannot be linked with a remote; omit `link: {request.link}`.")
        chosen = self._choose(meant, newest or Query(), before)
        with no_cycles(), self._opened(chosen, not request.paths, alone) as origin:
            done = Restorer(origin, request, dry, False, progress)()
            told = {**done.restore, "remote": self.transport.where, "fetched_bytes": origin.fetched_bytes}
            return done._replace(restore=told, warnings=[*origin.troubles, *done.warnings]), chosen.passed

    def meant(self, text: str) -> Meant:
        """What people mean by a text: `ID`, `WORKLOAD` or `latest`, with or without `HOST/` before it."""
        host, _slash, name = text.rpartition("/")
        if made_at(name) is not None:
            return Meant(host or None, backup=name)
        if name != LATEST:
            return Meant(host or None, workload=name)
        workloads = self.workloads(host or None)
        if len(workloads) != 1:
            which = f"there are several ({', '.join(workloads[:5])})" if workloads else "there are no backups"
            raise UsageError(f"The name latest is for hosts with one workload, and {which} on {self.transport.where}; name a workload or an id.")
        return Meant(host or None, workload=workloads[0])

    def workloads(self, host: t.Optional[str] = None) -> t.List[str]:
        """Names of all workloads of which a host has backups there, sorted. :param host: see `restore`."""
        about.check(self.transport, about.read(self.transport), self._keys, self._settings.id)
        return self.stock(self._whose(host))[0]

    def stock(self, host: str) -> t.Tuple[t.List[str], t.Dict[str, str]]:
        """The workloads of which a host has backups there, sorted; and by `<host>/<push>` why a commit of it cannot be read."""
        found = reading.listing(self.transport, self._keys, host).copies
        unread = {str(copy.push): copy.trouble or "" for copy in found if copy.sidecar is None}
        return sorted({copy.sidecar["workload_name"] for copy in found if copy.sidecar is not None}), unread

    def copied(self, host: str) -> t.Dict[str, str]:
        """The workloads of the copies that this host has there under a name, by `<host>/<push>`, as its own records say."""
        remote = about.read(self.transport).id
        return {push: workload for push, workload in ours.copied(self._manager, remote).items() if push.startswith(f"{host}/")}

    def record(self, meant: Meant) -> Sidecar:
        """The record of a backup of the remote."""
        return self._choose(meant, Query(), None).sidecar

    def pull(self, meant: Meant, dry: bool = False, progress: Progress = unwatched) -> Pulled:
        """Bring a backup of the remote into the store of this host."""
        chosen = self._choose(meant, Query(), None)
        push = chosen.commit.commit.push
        copy = CopyRecord(remote=about.read(self.transport).id, push=str(push), copied_at=show_time(names.moment(push.id)))
        with self._opened(chosen, True) as origin:
            return self._manager.pull(origin, copy, dry, progress)

    def verify(self, request: VerifyRequest, host: t.Optional[str] = None, dry: bool = False) -> Verified:
        """Look whether the remote has all that the copies of a host need, or vet the packs of all hosts.
        :param request: its level is structure, its ids are with or without `HOST/`. :param host: see `whose`."""
        from .structure import Survey

        if request.vet:
            from . import vetting

            return vetting.verified(self.transport, self._keys, self._settings, request, host, dry)
        if request.level != "structure" or request.budget is not None:
            raise UsageError("Only the structure of a remote can be verified; omit `level` and `budget`, or run a drill from it, which reads the content.")
        parted = [backup.rpartition("/") for backup in request.ids]
        hosts = {one for one, _slash, _id in parted if one}.union([host] if host is not None else [])
        if len(hosts) > 1:
            raise UsageError(f"The backups of one host are verified at a time, and there are several ({', '.join(sorted(hosts))}); name one.")
        chosen = self.whose(next(iter(hosts), None))
        self._keys.check_opens()
        survey = Survey(self.transport, self._keys, self._settings.jobs, chosen, [check_id(one[2]) for one in parted])
        with no_cycles():
            return survey(request.diff_limit)._replace(host=chosen)

    def contents(self, meant: Meant, limit: t.Optional[int]) -> t.Dict[str, t.Any]:
        """What is in a backup of the remote, as of `Manager.contents`."""
        with no_cycles(), self._opened(self._choose(meant, Query(), None), False) as origin:
            return contents(origin.manifest(), origin.load, limit)

    @contextlib.contextmanager
    def opened(self, text: str, everything: bool = False) -> t.Iterator[RemoteOrigin]:
        """A backup of the remote to read from, as people name it (see `meant`). :param everything: all of it will be read."""
        with no_cycles(), self._opened(self._choose(self.meant(text), Query(), None), everything) as origin:
            yield origin

    @contextlib.contextmanager
    def searched(self, query: Query, everything: bool) -> t.Iterator[Search]:
        """A search through the backups of the remote that match, as of `find`. :param everything: all of their trees will be read."""
        from .._backup.search import Search, Searched

        listed, warnings = self._listing(query)
        with no_cycles(), contextlib.ExitStack() as stack:
            there: t.Dict[str, Blobs] = {}
            backups: t.Dict[str, Searched] = {}
            unsearched: t.List[t.Dict[str, str]] = []
            for item, copy in listed:
                host = copy.push.host
                try:
                    if copy.read is None or copy.sidecar is None:
                        raise Damaged(copy.trouble or "")
                    manifest = choice.manifest(self._keys, copy.read, copy.sidecar)
                    if host not in there:
                        there[host] = stack.enter_context(self._reading(host, everything, warnings))
                except (Damaged, Unsupported) as error:
                    unsearched.append({"id": item["id"], "reason": error.message})
                    continue
                backups.setdefault(item["id"], Searched(item, manifest, there[host]))  # of several copies the newest
            newest_first = sorted(backups.values(), key=lambda backup: (backup.sidecar["created_at"], backup.sidecar["id"]), reverse=True)
            search = Search(newest_first, unsearched, _current)
            search.troubles = warnings
            yield search

    @contextlib.contextmanager
    def _reading(self, host: str, everything: bool, troubles: t.List[str]) -> t.Iterator[Blobs]:
        """What gives the trees of all backups of a host. :param troubles: is added to."""
        from .._restore.spool import Spool
        from .blobs import RemoteBlobs
        from .fetcher import Fetcher
        from .places import Places

        with Fetcher(self.transport, self._keys, self._settings.jobs, Spool()) as fetcher:
            places = Places(self.transport, self._keys, known.all_indexes(self.transport, host, self._keys), None, True, fetcher.contents)
            troubles.extend(places.troubles)
            yield RemoteBlobs(fetcher, self._keys, places, everything, self._local()[0])

    def _opened(self, chosen: choice.Chosen, everything: bool, alone: bool = False) -> RemoteOrigin:
        from .origin import RemoteOrigin

        local, places = self._local()
        return RemoteOrigin(self.transport, self._keys, chosen, everything, self._settings.jobs, None if alone else local, places)

    @contextlib.contextmanager
    def giving(self) -> t.Iterator[t.Callable[[bytes, int], t.Optional[bytes]]]:
        """What gives a repair the blobs that the copies of this host have: (digest, limit) -> bytes, None for one that cannot be had."""
        from .._restore.spool import Spool
        from .blobs import RemoteBlobs
        from .fetcher import Fetcher
        from .places import Places

        about.check(self.transport, about.read(self.transport), self._keys, self._settings.id)
        self._keys.check_opens()
        with Fetcher(self.transport, self._keys, self._settings.jobs, Spool()) as fetcher:

            @functools.lru_cache(maxsize=1)
            def blobs() -> RemoteBlobs:
                named = known.all_indexes(self.transport, self._whose(None), self._keys)
                there = Places(self.transport, self._keys, named, None, True, fetcher.contents)
                self.warnings = there.troubles
                return RemoteBlobs(fetcher, self._keys, there, False, None)

            def give(digest: bytes, limit: int) -> t.Optional[bytes]:
                try:
                    return blobs().read(digest, limit)
                except Damaged:
                    return None

            yield give

    def _choose(self, meant: Meant, newest: Query, before: t.Optional[str]) -> choice.Chosen:
        about.check(self.transport, about.read(self.transport), self._keys, self._settings.id)
        limit = parse_time(before) if before else None
        backup = check_id(meant.backup) if meant.backup is not None else None
        host, pushes = self._commits(meant.host)
        if backup is not None:
            return choice.by_id(self.transport, self._keys, host, pushes, backup)
        workload = check_workload(meant.workload or "")
        return choice.newest(self.transport, self._keys, host, pushes, workload, selects(workload, newest.type, newest.tags), limit)

    def _whose(self, host: t.Optional[str]) -> str:
        """The host whose backups are meant: the one that was named, or this one, or the only one that there is."""
        return self._named(host) or self._commits(None)[0]

    def _named(self, host: t.Optional[str]) -> t.Optional[str]:
        return host or self._settings.host or (self._keys.host if self._settings.keys is not None else None)

    def _commits(self, host: t.Optional[str]) -> t.Tuple[str, t.Sequence[names.Push]]:
        """The host that is meant, and its commits."""
        named = self._named(host)
        if named is not None:
            return named, known.committed(self.transport, named)
        there = reading.hosts(self.transport)
        chosen = next(iter(there)) if len(there) == 1 else None
        with tolerated(VoltError):
            chosen = self.host if self.host in there else chosen
        if chosen is not None:
            pushes = there[chosen]
            return chosen, pushes if pushes is not None else known.committed(self.transport, chosen)
        which = f"it has those of {', '.join([*there][:5])}{' and others' if len(there) > 5 else ''}" if there else "it has none"
        raise UsageError(f"{self.transport.where}: the host whose backups are meant was not named, and {which}; name it in front of the id, as HOST/ID.")

    def _local(self) -> t.Tuple[t.Optional[Store], t.List[str]]:
        """The store of this host, if there is one that can be read, and the directories that no target may be in."""
        places = [*self._manager.places]
        if url.parse(self._settings.url).kind == url.DIRECTORY:
            places.append(url.parse(self._settings.url).path)
        try:
            store = self._manager.copies.store
        except Interrupted:
            raise
        except VoltError:
            return None, places
        return store if store.exists else None, places

    def find(self, query: Query) -> t.Tuple[t.List[Listed], t.List[str]]:
        """The backups on the remote that match, the newest first, and what is wrong with what the remote has.

        The host of a query is what a host is called on the remote; without one, it is every host. Ids are `<host>/<id>`.
        """
        found, warnings = self._listing(query)
        listed = [item for item, _copy in found]
        for item in listed:
            item["pushed_to_cdn"] = True
        return (listed[: query.limit] if query.limit else listed), warnings

    def _listing(self, query: Query) -> t.Tuple[t.List[t.Tuple[Listed, reading.Copy]], t.List[str]]:
        """The same with the copies."""
        accept = accepts(query._replace(host=None))
        about.check(self.transport, about.read(self.transport), self._keys, self._settings.id)
        found = reading.listing(self.transport, self._keys, query.host)
        listed = [(_listed(copy), copy) for copy in found.copies]
        return [pair for pair in listed if accept(pair[0]) and query.id in (None, pair[0]["id"].partition("/")[2])], found.warnings


def _current(_sidecar: Listed) -> bool:
    """Whether a backup is still on the remote: commits are never changed, and what is lost there is told."""
    return True


def told(done: t.Iterable[t.Tuple[Sidecar, t.Optional[Pushed]]]) -> t.List[t.Dict[str, t.Any]]:
    """What `Remote.push` did, for programs. Bytes in `new_bytes` are plain, those in `sent_bytes` as they were sent."""
    nothing = Pushed(None, 0, 0, 0, 0)
    return [{"id": sidecar["id"], "changed": pushed is not None, **(pushed or nothing)._asdict()} for sidecar, pushed in done]


def _losses(where: str, done: t.Iterable[t.Tuple[Sidecar, t.Optional[Pushed]]], missing: int, dry: bool) -> t.List[str]:
    """What a remote has lost, as sentences. :param missing: how many of the newest commits it does not have."""
    lost = [sidecar["id"] for sidecar, pushed in done if pushed is not None and pushed.lost is not None]
    why = "it was set back, or something deletes there."
    found = []
    if lost:
        found.append(f"{where} has lost {len(lost)} copies (the first is of {lost[0]}): {why}{'' if dry else ' They were made again.'}")
    if missing > len(lost):
        found.append(f"{where} does not have the newest {missing} commits of this host, or they cannot be read: {why}")
    return found


def _is_there(pusher: Pusher, sidecar: Sidecar, surely: bool) -> bool:
    """Whether the remote has a copy of a backup: the sidecar says so, and the remote has the commit."""
    push = copy_on(sidecar, pusher.about.id)
    return push is not None and pusher.has(push, surely)


def _listed(copy: reading.Copy) -> Listed:
    """A copy as backups are listed."""
    commit = {"seq": copy.seq, "commit_sha256": copy.sha256}
    if copy.sidecar is None:
        return t.cast(Listed, {**unreadable(str(copy.push), Damaged(copy.trouble or "")), **commit})
    found = with_state(t.cast(Listed, copy.sidecar), None)
    return t.cast(Listed, {**found, **commit, "id": f"{copy.push.host}/{found['id']}"})


def _backup(original: Original) -> Backup:
    sidecar, manifest = original.sidecar, original.manifest
    return Backup(sidecar["id"], sidecar["workload_name"], sidecar["type"], original.record, original.data, manifest.root.content, manifest.links)
