# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""A remote in a bucket of an S3 server: AWS, Ceph, MinIO, and others that speak the same.

Servers differ in what they check, so nothing is taken from what a server calls itself. `create` sends If-None-Match; a `probe` shows whether
the server acts on it, for some accept the header and overwrite all the same. Uploads carry their MD5 and SHA-256. Downloads are judged by their
length, because some servers answer to a range with everything. Listings are asked for page by page, each from the last name on, so that each
page can be repeated by itself; their order is checked.

In a bucket with object lock, objects cannot be removed for some days. A host that was stolen can still hide one: behind a marker of a deletion, or behind a
newer version. So there the oldest version of a name counts, of all objects that are written once.

Failed requests are repeated here: botocore does not wait as long as Retry-After says, and does not repeat a download that is cut.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import http.client
import random
import re
import secrets
import threading
import time
import typing as t

from .._base import Damaged, RemoteError, RemoteRefused, show
from . import names, s3_failures
from .pace import Body, Pace
from .s3_client import Client, Place
from .s3_failures import Answer, Failure
from .transport import EXCLUSIVE, MOST, NAME, TIMED, Abilities, Entry, too_large

#: The first wait between attempts, and the longest, in seconds. Each is multiplied by a random number, so that hosts do not come back together.
_WAIT, _LONGEST = 0.5, 20.0
#: How long to try where the server was never reached, in seconds: then the URL is more likely wrong than the server down.
_FIRST = 10.0
#: Objects in one request to delete: the most that S3 allows.
_BATCH = 1000
_PAGE = 1000
_RACERS, _ROUNDS = 8, 3
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)\Z")
Result = t.TypeVar("Result")


class _Told(Exception):
    """An error within an answer that is a success as a whole."""

    def __init__(self, answer: Answer, name: str, more: int) -> None:
        super().__init__(answer.code)
        self.answer, self.name, self.more = answer, name, more


class S3:
    """A remote in a bucket. See `transport.Transport` for its verbs, and `s3_client.Client` for credentials, ca and proxy.

    :param storage_class: for packs of data; all else is read often, and stays in the standard class.
    :param lock: days for which an object that is written once cannot be removed, or replaced; None where the bucket has no object lock.
    :param pace: limits how fast objects are sent. :param jobs: how many threads use this remote at once.
    :param patience: how long one verb tries, in seconds; a request under way is not cut off.
    """

    def __init__(self, place: Place, credentials: t.Optional[t.Mapping[str, str]] = None, *, ca: str = "", proxy: str = "", storage_class: str = "",
                 lock: t.Optional[int] = None, pace: t.Optional[Pace] = None, jobs: int = 8, patience: float = 300.0) -> None:  # fmt: skip
        self.where = place.url
        #: Set it to TIMED where a probe found that the server does not refuse to create a name twice: then `create` looks first.
        self.commit = EXCLUSIVE
        #: Set it for a bucket with object lock.
        self.oldest = lock is not None
        self._versions: t.Dict[str, str] = {}  # of names that were listed, which version is the oldest
        self.pace = pace or Pace()
        self._place, self._storage_class, self._lock, self._patience = place, storage_class, lock, patience
        self._top = f"{place.prefix}/" if place.prefix else ""
        self._reached = False
        self._client = Client(place, credentials, ca, proxy, max(jobs, _RACERS))

    def __repr__(self) -> str:
        return f"S3({self.where})"

    # ---- verbs

    def create(self, name: str, data: bytes) -> bool:
        if self.commit == TIMED:
            if self.get(name, 0, 1) is not None:
                return False
            self.put(name, data)
            return True
        return self._create(name, data)

    def put(self, name: str, data: bytes) -> None:
        self._attempts("write", name, self._upload, name, data)

    def get(self, name: str, start: int = 0, length: t.Optional[int] = None) -> t.Optional[bytes]:
        if length == 0:
            return b"" if self.head(name) is not None else None
        return self._attempts("read", name, self._download, name, start, length)[0]

    def head(self, name: str) -> t.Optional[Entry]:
        return self._attempts("read", name, self._look, name)

    def list(self, prefix: str, after: str = "") -> t.Iterator[Entry]:
        """Objects that others put there under names that are none of a remote's are passed over."""
        if self._is_kept(prefix):
            yield from self._list_oldest(prefix, after)
            return
        start, last, more = self._top + prefix, self._top + after if after else "", True
        place = last  # where the server is to go on; some begin again where there is no such name (now)
        while more:
            page, more = self._attempts("list", prefix, self._page, start, place)
            keys = [key.encode() for key, _size, _time in page]
            if keys != sorted(keys) or not all(key.startswith(start.encode()) for key in keys) or more and (not keys or keys[-1] == place.encode()):
                raise self._unordered()
            for place, size, moment in page:
                name = place[len(self._top) :]
                if place.encode() > last.encode() and NAME.match(name):
                    yield Entry(name, size, moment)
            last = max(last, place, key=str.encode)

    def delete(self, names: t.Iterable[str]) -> None:
        todo = list(names)
        for start in range(0, len(todo), _BATCH):
            batch = todo[start : start + _BATCH]
            self._attempts("remove", batch[0], self._remove, batch)

    def now(self) -> float:
        return self._attempts("read", names.ABOUT, self._clock)

    def probe(self) -> Abilities:
        if self._lock is not None:
            self._attempts("read", names.ABOUT, self._check_lock)
        place = f"probe/{secrets.token_hex(8)}"
        twice, altered = f"{place}/twice", f"{place}/altered"
        races = [f"{place}/race-{number}" for number in range(_ROUNDS)]
        try:
            exclusive = self._creates_once(twice) and all(self._race(name) for name in races)
            checks = self._attempts("write", altered, self._refuses_altered, altered)
            self.put(twice, b"0123456789")
            ranges = self._attempts("read", twice, self._download, twice, 3, 4) == (b"3456", True)
        except BaseException:
            with contextlib.suppress(RemoteError):
                self.delete([twice, altered, *races])
            raise
        with contextlib.suppress(RemoteRefused):  # a host need not have the right to delete
            self.delete([twice, altered, *races])
        self.commit = EXCLUSIVE if exclusive else TIMED
        return Abilities(self.commit, checks, ranges)

    # ---- one attempt each

    def _key(self, name: str) -> str:
        if not NAME.match(name):
            raise RemoteError(f"{self.where}: {show(name)} cannot be the name of an object; report this error.")
        return self._top + name

    def _create(self, name: str, data: bytes) -> bool:
        """Whether the server says that it created an object, under the condition that there is none.

        Where the oldest version counts, it must be the one that was written: to the server, an object behind the marker of a deletion is none.
        """
        version = self._attempts("write", name, self._upload_new, name, data)
        if version is None or not self._is_kept(name):
            return version is not None
        return self._oldest_of(name) is not None and self._versions[name] == version

    def _upload_new(self, name: str, data: bytes) -> t.Optional[str]:
        """The version that was written; empty where the bucket has none, None where the object exists."""
        try:
            return self._upload(name, data, {"If-None-Match": "*"})
        except self._client.Error as error:
            if Answer.of(error).status != 412:
                raise
            return None

    def _upload(self, name: str, data: bytes, headers: t.Optional[t.Mapping[str, str]] = None) -> str:
        """The version that was written; empty where the bucket has none."""
        options: t.Dict[str, t.Any] = {}
        pack = names.parse_pack(name)
        if self._storage_class and pack is not None and not pack.metadata:
            options["StorageClass"] = self._storage_class
        if self._lock is not None and self._is_kept(name):
            until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=self._lock)
            options.update(ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until)
        answer = self._client.call("put_object", headers, lambda body: Body(body, self.pace), Key=self._key(name), Body=data, **options)
        return str(answer.get("VersionId") or "")

    def _download(self, name: str, start: int, length: t.Optional[int]) -> t.Tuple[t.Optional[bytes], bool]:
        """The bytes of a range, None where there is no object; and whether the server sent no more than them."""
        whole = start == 0 and length is None
        options: t.Dict[str, t.Any] = {} if whole else {"Range": f"bytes={start}-{'' if length is None else start + length - 1}"}
        if self._is_kept(name):
            if name not in self._versions and self._oldest_of(name) is None:
                return None, True
            options["VersionId"] = self._versions[name]
        try:
            answer = self._client.call("get_object", Key=self._key(name), **options)
        except self._client.Error as error:
            if self._is_missing(error):
                return None, True
            if Answer.of(error).status == 416:  # it starts at the end, or after it
                return b"", True
            raise
        data = b"".join(self._pieces(answer["Body"], name))
        told = _RANGE.match(answer.get("ContentRange") or "")  # some send it with a status of 200
        if told:
            if told[3] == "*":
                end = int(told[2]) + 1
            else:
                end = int(told[3]) if length is None else min(start + length, int(told[3]))
            if int(told[1]) != start or len(data) != end - start:
                raise http.client.IncompleteRead(b"", end - start)
            return data, True
        size = answer.get("ContentLength")
        if size is None or not whole:
            entry = self._look(name)
            size = entry.size if entry else -1
        if len(data) != size:
            raise http.client.IncompleteRead(b"", size)
        return (data, True) if whole else (data[start:] if length is None else data[start : start + length], False)

    def _pieces(self, body: t.Any, name: str) -> t.Iterator[bytes]:
        size = 0
        while True:
            piece: bytes = body.read(self.pace.piece)
            if not piece:  # up to here, so that the number of bytes is checked
                return
            size += len(piece)
            if size > MOST:
                body.close()
                raise too_large(self.where, name)
            self.pace.received(len(piece))
            yield piece

    def _look(self, name: str) -> t.Optional[Entry]:
        if self._is_kept(name):
            return self._oldest_of(name)
        try:
            return self._head(name)
        except self._client.Error as error:
            if Answer.of(error).status not in (400, 403, 404):
                raise
        # An answer to HEAD has no body that says why. One to GET has.
        data, _exact = self._download(name, 0, 1)
        return None if data is None else self._head(name)

    def _head(self, name: str) -> Entry:
        answer = self._client.call("head_object", Key=self._key(name))
        return Entry(name, int(answer["ContentLength"]), answer["LastModified"].timestamp())

    def _page(self, start: str, last: str) -> t.Tuple[t.List[t.Tuple[str, int, float]], bool]:
        """Keys with size and time after the last one, and whether there are more."""
        options: t.Dict[str, t.Any] = {"StartAfter": last} if last else {}
        answer = self._client.call("list_objects_v2", Prefix=start, MaxKeys=_PAGE, **options)
        if "IsTruncated" not in answer:  # an answer that was cut before its first byte looks like an empty listing
            raise http.client.IncompleteRead(b"")
        found = [(item["Key"], int(item["Size"]), item["LastModified"].timestamp()) for item in answer.get("Contents", [])]
        return found, bool(answer["IsTruncated"])

    # ---- versions

    def _is_kept(self, name: str) -> bool:
        """Whether the oldest version of an object counts, or of all objects with a prefix."""
        return self.oldest and name.startswith(names.KEPT)

    def _oldest_of(self, name: str) -> t.Optional[Entry]:
        return next((entry for entry in self._list_oldest(name, "") if entry.name == name), None)

    def _list_oldest(self, prefix: str, after: str) -> t.Iterator[Entry]:
        """As `list`; of each name its oldest version, also where it was deleted. Versions of a name are listed from the newest on."""
        start, mark = self._top + prefix, (self._top + after if after else "", "")
        oldest: t.Optional[t.Tuple[Entry, str]] = None
        more = True
        while more:
            before = mark
            page, mark, more = self._attempts("list", prefix, self._version_page, start, mark)
            if more and mark == before:
                raise self._unordered()
            for key, version, size, moment in page:
                name = key[len(self._top) :]
                if oldest is not None and oldest[0].name != name:
                    yield self._known(*oldest)
                    oldest = None
                if key.startswith(start) and NAME.match(name) and name.encode() > after.encode():
                    oldest = Entry(name, size, moment), version
        if oldest is not None:
            yield self._known(*oldest)

    def _known(self, entry: Entry, version: str) -> Entry:
        self._versions[entry.name] = version
        return entry

    def _unordered(self) -> RemoteError:
        return RemoteError(f"{self.where}: the server returns listings out of order; use another S3 server.")

    def _version_page(self, start: str, mark: t.Tuple[str, str]) -> t.Tuple[t.List[t.Tuple[str, str, int, float]], t.Tuple[str, str], bool]:
        """Versions with key, id, size and time after a mark, the mark of the last, and whether there are more."""
        options = {key: value for key, value in zip(("KeyMarker", "VersionIdMarker"), mark) if value}
        answer = self._client.call("list_object_versions", Prefix=start, MaxKeys=_PAGE, **options)
        if "IsTruncated" not in answer:
            raise http.client.IncompleteRead(b"")
        found = [(item["Key"], item["VersionId"], int(item["Size"]), item["LastModified"].timestamp()) for item in answer.get("Versions", [])]
        return found, (answer.get("NextKeyMarker", ""), answer.get("NextVersionIdMarker", "")), bool(answer["IsTruncated"])

    def _check_lock(self) -> None:
        try:
            answer = self._client.call("get_object_lock_configuration")
        except self._client.Error as error:
            if Answer.of(error).code != "ObjectLockConfigurationNotFoundError":
                raise
            answer = {}
        if answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") != "Enabled":
            raise RemoteError(f"{self.where}: the bucket has no object lock; create a bucket with object lock, or omit `lock`.")

    # ---- further attempts

    def _remove(self, batch: t.List[str]) -> None:
        keys = [self._key(name) for name in batch]
        answer = self._client.call("delete_objects", Delete={"Objects": [{"Key": key} for key in keys], "Quiet": False})
        errors = [error for error in answer.get("Errors", []) if error.get("Code") != "NoSuchKey"]
        if errors:
            first = errors[0]
            why = Answer(0, str(first.get("Code") or ""), str(first.get("Message") or ""), {})
            raise _Told(why, str(first.get("Key") or "")[len(self._top) :], len(errors) - 1)
        told = {item.get("Key") for item in (*answer.get("Deleted", []), *answer.get("Errors", []))}
        if not told.issuperset(keys):
            raise http.client.IncompleteRead(b"")

    def _clock(self) -> float:
        try:
            answer = self._client.call("get_object", Key=self._key(names.ABOUT), Range="bytes=0-0")
            answer["Body"].read()
            headers = {str(key).lower(): str(value) for key, value in answer["ResponseMetadata"]["HTTPHeaders"].items()}
        except self._client.Error as error:
            if not self._is_missing(error) and Answer.of(error).status != 416:
                raise
            headers = dict(Answer.of(error).headers)
        moment = s3_failures.clock(headers)
        if moment is None:
            raise RemoteError(f"{self.where}: the server sends no Date header; use another S3 server.")
        return moment

    def _creates_once(self, name: str) -> bool:
        """Whether a second writer is refused."""
        try:
            self._create(name, b"first")  # no is an answer too: the answer to a first attempt can be lost
            return not self._create(name, b"later") and self.get(name) == b"first"
        except s3_failures.Lacking:
            return False

    def _race(self, name: str) -> bool:
        """Whether of several writers at the same moment no more than one is told that it created an object, and its bytes stay."""
        line = threading.Barrier(_RACERS)

        def write(number: int) -> bool:
            line.wait()
            return self._create(name, b"%d" % number)

        with concurrent.futures.ThreadPoolExecutor(_RACERS) as pool:
            won = [number for number, created in enumerate(pool.map(write, range(_RACERS))) if created]
        kept = self.get(name)
        return kept is not None and [kept] == [b"%d" % number for number in won or [int(kept)]]

    def _refuses_altered(self, name: str) -> bool:
        """Whether an upload fails whose bytes are altered on their way."""
        try:
            self._client.call("put_object", None, lambda body: body[::-1], Key=self._key(name), Body=b"what was signed")
        except self._client.Error as error:
            status = Answer.of(error).status
            if status in (408, 429) or status >= 500:
                raise
        return self._look(name) is None

    @staticmethod
    def _is_missing(error: t.Any) -> bool:
        """Whether there is no such object, in a bucket that exists."""
        answer = Answer.of(error)
        return answer.status == 404 and answer.code != "NoSuchBucket"

    # ---- all attempts

    def _attempts(self, verb: str, name: str, attempt: t.Callable[..., Result], *arguments: t.Any) -> Result:
        """What an attempt with these arguments returns. It is repeated while that can help; then a RemoteError is raised."""
        start = time.monotonic()
        tries = 0
        while True:
            tries += 1
            try:
                result = attempt(*arguments)
                self._reached = True
                return result
            except Exception as error:
                failure = self._failure(error, verb, name)
                if failure is None:
                    raise
            # outside of the handler: what is raised here has no context, which could quote a request
            self._reached = self._reached or not failure.away
            now = time.monotonic()
            wait = max(random.uniform(0.5, 1.0) * min(_WAIT * 2 ** (tries - 1), _LONGEST), failure.wait)
            limit = start + (self._patience if self._reached else min(self._patience, _FIRST))
            if not failure.again or now + wait > limit or self.pace.stopped.wait(wait):
                tried = f" Tried {tries} times in {now - start:.0f} seconds." if tries > 1 else ""
                raise failure.kind(f"{self.where}: {failure.text}.{tried}")

    def _failure(self, error: Exception, verb: str, name: str) -> t.Optional[Failure]:
        if isinstance(error, (RemoteError, Damaged)):
            return None
        if isinstance(error, _Told):
            more = f" and {error.more} more" if error.more else ""
            return s3_failures.of_answer(error.answer, f"{verb} {error.name}{more}", error.name, self._place.bucket)
        doing = f"{verb} {name}".rstrip()
        if isinstance(error, self._client.Error):
            return s3_failures.of_answer(Answer.of(error), doing, name, self._place.bucket)
        return s3_failures.of_exception(error, self._place.host)
