# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Where an S3 remote is, and the client that talks to it.

The client is botocore's, which boto3 builds on: credentials, regions, signatures and proxies are its business. Versions from 1.29 (boto3 1.26, in
Debian 12) are known to work. What old versions do not know is set at two of its events: headers before a request is signed, and
the body as it is sent.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import re
import threading
import typing as t
import urllib.parse

from .._base import RemoteError, UsageError, open_file, reason, show
from . import credential, s3_failures
from .transport import NAME

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]\Z")
_REGION = re.compile(r"[A-Za-z0-9-]{1,64}\Z")
_OPTIONS = ("endpoint", "region", "style")
_CREDENTIALS = ("access_key", "secret_key", "session_token", "profile", "credential")
#: Seconds: to get a connection, and between two pieces of an answer.
_CONNECT, _READ = 10, 60


class Place(t.NamedTuple):
    """Where a remote is, as its URL says."""

    bucket: str
    #: What all names begin with, without slashes at its ends.
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    #: `path` or `virtual`: where the bucket's name stands in a request; empty: `path` where there is an endpoint.
    style: str = ""

    @property
    def url(self) -> str:
        options = {name: getattr(self, name) for name in _OPTIONS if getattr(self, name)}
        query = urllib.parse.urlencode(options, safe=":/[]")
        return f"s3://{self.bucket}{'/' + self.prefix if self.prefix else ''}{'?' + query if query else ''}"

    @property
    def host(self) -> str:
        """Whom requests are sent to, as shown."""
        return urllib.parse.urlsplit(self.endpoint).netloc or "the S3 service"


def parse_url(url: str) -> Place:
    """Parse `s3://BUCKET[/PREFIX][?endpoint=URL&region=NAME&style=path|virtual]`. UsageError for anything else; it quotes no password."""
    try:
        parts = urllib.parse.urlsplit(url)
        query = urllib.parse.parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise UsageError("The URL of the remote is invalid; write it like s3://bucket/prefix?endpoint=https://host.") from None
    if "@" in parts.netloc:
        raise UsageError("The URL of a remote must not contain credentials; remove them and use `credentials`.")
    if parts.scheme != "s3" or parts.fragment or not _BUCKET.match(parts.netloc):
        raise UsageError("The URL of an S3 remote is s3://BUCKET/PREFIX, and the bucket's name has at least 3 letters, digits or .-_; correct it.")
    prefix = parts.path.strip("/")
    if prefix and not NAME.match(prefix):
        raise UsageError(f"Prefix {show(prefix)} of the remote is invalid; use letters, digits and .-_/, and begin no part with a dot.")
    options = dict(query)
    unknown = sorted(options.keys() - set(_OPTIONS))
    if unknown or len(options) < len(query):
        what = f"has unknown option {show(unknown[0])}" if unknown else "has an option twice"
        raise UsageError(f"The URL of the remote {what}; use each of {', '.join(_OPTIONS)} at most once, and no credentials.")
    _check(options)
    return Place(parts.netloc, prefix, options.get("endpoint", "").rstrip("/"), options.get("region", ""), options.get("style", ""))


def _check(options: t.Mapping[str, str]) -> None:
    if "endpoint" in options:
        try:
            endpoint = urllib.parse.urlsplit(options["endpoint"])
            valid = endpoint.scheme in ("http", "https") and bool(endpoint.hostname) and endpoint.port != 0 and "@" not in endpoint.netloc
        except ValueError:
            valid = False
        if not valid or endpoint.path.strip("/") or endpoint.query or endpoint.fragment:
            raise UsageError("The endpoint of the remote must be http:// or https://, a host and perhaps a port, and nothing else; correct it.")
    if "region" in options and not _REGION.match(options["region"]):
        raise UsageError("The region of the remote is invalid; write it like eu-central-1.")
    if options.get("style", "path") not in ("path", "virtual"):
        raise UsageError("The style of the remote must be path or virtual.")


class _Own(threading.local):
    """What a thread wants of the request that it makes."""

    headers: t.Mapping[str, str] = {}
    body: t.Optional[t.Callable[[bytes], t.Any]] = None


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode("ascii")


def _time(text: t.Any) -> t.Optional[datetime.datetime]:
    """A time as listings have it; None for one in another form. botocore's own parser takes half of the time of a long listing."""
    try:
        return datetime.datetime.fromisoformat(text[:-1]).replace(tzinfo=datetime.timezone.utc) if text[10] + text[-1] == "TZ" else None
    except (TypeError, ValueError, IndexError):
        return None


class Client:
    """A client of botocore: `call` makes one attempt at a request. Threads may share it.

    :param credentials: access_key and secret_key, perhaps session_token; or profile; or credential, the name of one of systemd that holds them as JSON;
        None for those of the environment or the machine.
    :param ca: a file with certificates that the server's is checked against; empty for those of the system.
    :param proxy: the URL of a proxy; empty for that of the environment. :param connections: how many to keep.
    """

    def __init__(self, place: Place, credentials: t.Optional[t.Mapping[str, str]], ca: str, proxy: str, connections: int) -> None:
        given = dict(credentials or {})
        check_credentials(place, given)
        if "credential" in given:
            given = open_credential(place, given["credential"])
        try:
            import botocore.config  # type: ignore
            import botocore.session  # type: ignore
            import botocore.utils  # type: ignore
        except ImportError:
            raise RemoteError(f"{place.url}: S3 needs the Python package boto3 on this host; install python3-boto3, then run again.") from None
        if ca:
            _check_ca(place, ca)
        self._place, self._own = place, _Own()
        session = botocore.session.Session(profile=given.get("profile") or None)
        if "access_key" in given:
            session.set_credentials(given["access_key"], given["secret_key"], given.get("session_token") or None)
        parsers = session.get_component("response_parser_factory")
        parsers.set_parser_defaults(timestamp_parser=lambda text: _time(text) or botocore.utils.parse_timestamp(text))
        settings: t.Dict[str, t.Any] = {
            "signature_version": "s3v4",
            # every server looks at the SHA-256 that the signature covers; botocore leaves it out over TLS unless told
            "s3": {"addressing_style": place.style or ("path" if place.endpoint else "auto"), "payload_signing_enabled": True},
            "retries": {"total_max_attempts": 1, "mode": "standard"},  # it knows no Retry-After, and does not repeat a cut download
            "max_pool_connections": connections,
            "connect_timeout": _CONNECT,
            "read_timeout": _READ,
            # other servers than AWS refuse the checksums that newer versions add
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
        if proxy:
            settings["proxies"] = {"http": proxy, "https": proxy}
        config = botocore.config.Config(**{key: value for key, value in settings.items() if key in botocore.config.Config.OPTION_DEFAULTS})
        try:
            region = place.region or session.get_config_variable("region") or "us-east-1"
            self._client = session.create_client("s3", region_name=region, endpoint_url=place.endpoint or None, config=config, verify=ca or None)
            failure = None
        except Exception as error:  # botocore's own family of errors, and ValueError
            failure = s3_failures.of_exception(error, place.host) or s3_failures.Failure(
                RemoteError, f"no S3 client can be made of the URL and these settings ({type(error).__name__}); correct them"
            )
        if failure is not None:
            raise failure.kind(f"{place.url}: {failure.text}.")
        self.Error: t.Type[Exception] = self._client.exceptions.ClientError
        self._client.meta.events.register("before-call.s3", self._before_signing)
        self._client.meta.events.register("before-send.s3", self._before_sending)

    def call(self, operation: str, headers: t.Optional[t.Mapping[str, str]] = None, body: t.Optional[t.Callable[[bytes], t.Any]] = None,
             **parameters: t.Any) -> t.Dict[str, t.Any]:  # fmt: skip
        """One attempt at an operation on the bucket; the exceptions are botocore's.

        :param operation: such as put_object. :param headers: further ones. :param body: makes from the signed body what is sent.
        """
        self._own.headers, self._own.body = headers or {}, body
        if "Body" in parameters:  # AWS and Ceph look at the SHA-256 of the signature, others only at this
            parameters["ContentMD5"] = _md5(parameters["Body"])
        try:
            answer: t.Dict[str, t.Any] = getattr(self._client, operation)(Bucket=self._place.bucket, **parameters)
            return answer
        finally:
            self._own.headers, self._own.body = {}, None

    def _before_signing(self, model: t.Any, params: t.Dict[str, t.Any], **_more: t.Any) -> None:
        params["headers"].update(self._own.headers)
        if model.name == "DeleteObjects":  # newer versions send another sum, and some servers demand this one
            params["headers"]["Content-MD5"] = _md5(params["body"])

    def _before_sending(self, request: t.Any, **_more: t.Any) -> None:
        if self._own.body is not None:
            request.body = self._own.body(request.body.read())


def check_credentials(place: Place, given: t.Mapping[str, str]) -> None:
    """UsageError, without a value, for credentials that can never work. A line break would be quoted by what cannot send it."""
    strange = sorted(given.keys() - set(_CREDENTIALS))
    if strange:
        raise UsageError(f"{place.url}: credentials have the unknown key {show(strange[0])}; use {', '.join(_CREDENTIALS)}.")
    for key, value in given.items():
        if not isinstance(value, str) or not value.isascii() or not value.isprintable() or value != value.strip():
            raise UsageError(f"{place.url}: {key} of the credentials contains spaces at the ends, a line break or other invalid characters; correct it.")
    ways = [any(given.get(key) for key in way) for way in (("access_key", "secret_key"), ("profile",), ("credential",))]
    if given and (sum(ways) != 1 or bool(given.get("access_key")) != bool(given.get("secret_key"))):
        raise UsageError(f"{place.url}: credentials need `access_key` and `secret_key`, or else `profile`, or else `credential`; correct them.")
    if ways[2]:
        credential.check_name(given["credential"])


def open_credential(place: Place, name: str) -> t.Dict[str, str]:
    """What a credential of systemd has. An empty one is no choice: those of the environment would be used in its place."""
    text = credential.read(name)
    try:
        found = json.loads(text)
        if not isinstance(found, dict) or not found or "credential" in found:
            raise ValueError(name)
    except (ValueError, RecursionError):
        raise UsageError(f"Credential {name} is not a JSON object with `access_key` and `secret_key`, or with `profile`; encrypt it again.") from None
    check_credentials(place, found)
    return found


def _check_ca(place: Place, path: str) -> None:
    try:
        os.close(open_file(path))
    except OSError as error:
        raise UsageError(f"{place.url}: `ca` {show(path)} cannot be read: {reason(error)}; correct it.") from None
