# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What an answer of an S3 server, or the lack of one, means: which exception, which sentence, and whether to try again.

Servers agree on the names of errors, less on their HTTP statuses, and not at all on their texts. So names are looked at first, then
statuses. Texts of a server are shown only where neither is known. Nothing here shows credentials: no text of an exception is passed on that could
quote a request.
"""

from __future__ import annotations

import datetime
import socket
import time
import typing as t

from .._base import NoRemote, RemoteError, RemoteFull, RemoteRefused, RemoteUnreachable, brief

#: Seconds that a clock may be off: servers refuse signatures that are more than 15 minutes older or newer than they are.
_MOST_SKEW = 890.0


class Lacking(RemoteError):
    """The server does not have something of the S3 interface."""


class Failure(t.NamedTuple):
    """What a failed request means."""

    kind: t.Type[RemoteError]
    #: What happened, and after a semicolon what to do.
    text: str
    #: Whether the same request may succeed later.
    again: bool = False
    #: How long the server asked to wait, in seconds.
    wait: float = 0.0
    #: Whether there was no connection at all.
    away: bool = False


class Answer(t.NamedTuple):
    """An error as a server told it."""

    status: int
    #: The name of the error; digits where the answer had no body.
    code: str
    text: str
    #: Names are in lower case.
    headers: t.Mapping[str, str]

    @classmethod
    def of(cls, error: t.Any) -> Answer:
        """:param error: a ClientError of botocore."""
        told, meta = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
        headers = {str(name).lower(): str(value) for name, value in meta.get("HTTPHeaders", {}).items()}
        return cls(int(meta.get("HTTPStatusCode") or 0), str(told.get("Code") or ""), str(told.get("Message") or ""), headers)


_EXPIRED = "the credentials have expired; get new ones for this remote"
_KEY = "the access key is unknown to the server; correct the credentials of this remote"
_SECRET = "the secret key does not fit the access key; correct the credentials of this remote"
_REGION = "the bucket is in another region; add region=NAME to the URL"
_BUSY = Failure(RemoteUnreachable, "the server answers with {status}; run again later", again=True)
_ALTERED = "uploaded data arrived altered; check the network and proxies, then run again"

#: By the name of the error. `{name}` is what the request was for, `{bucket}` the bucket, `{doing}` such as "write NAME".
_NAMES: t.Dict[str, Failure] = {
    "NoSuchBucket": Failure(NoRemote, "bucket {bucket} does not exist there; create it, or correct the URL"),
    "InvalidBucketName": Failure(NoRemote, "{bucket} cannot be the name of a bucket; correct the URL"),
    "InvalidAccessKeyId": Failure(RemoteRefused, _KEY),
    "SignatureDoesNotMatch": Failure(RemoteRefused, _SECRET),
    "ExpiredToken": Failure(RemoteRefused, _EXPIRED),
    "ExpiredTokenException": Failure(RemoteRefused, _EXPIRED),
    "RequestExpired": Failure(RemoteRefused, _EXPIRED),
    "TokenRefreshRequired": Failure(RemoteRefused, _EXPIRED),
    "InvalidToken": Failure(RemoteRefused, "the session token is not valid; get new credentials for this remote"),
    "AccessDenied": Failure(RemoteRefused, "the credentials lack permission to {doing}; change the policy of their key, or use another key"),
    "AccountProblem": Failure(RemoteRefused, "the account is blocked; ask the provider"),
    "AllAccessDisabled": Failure(RemoteRefused, "access to the bucket is blocked; ask the provider"),
    "UserSuspended": Failure(RemoteRefused, "the user is suspended; ask the provider"),
    "RequestTimeTooSkewed": Failure(RemoteRefused, "the clock of this host is {skew}; set it, then run again"),
    "QuotaExceeded": Failure(RemoteFull, "the quota of the remote is used up; raise it, or delete data there"),
    "InsufficientStorage": Failure(RemoteFull, "no space is left on the remote; free space there, then run again"),
    "XMinioStorageFull": Failure(RemoteFull, "no space is left on the remote; free space there, then run again"),
    "XMinioAdminBucketQuotaExceeded": Failure(RemoteFull, "the quota of the remote is used up; raise it, or delete data there"),
    "InvalidObjectState": Failure(RemoteError, "{name} is in an archive; restore it there first, then run again"),
    "AuthorizationHeaderMalformed": Failure(RemoteError, _REGION),
    "PermanentRedirect": Failure(RemoteError, _REGION),
    "IllegalLocationConstraintException": Failure(RemoteError, _REGION),
    "NotImplemented": Failure(Lacking, "the server does not implement what it needs to {doing}; use another S3 server"),
    "BadDigest": Failure(RemoteError, _ALTERED, again=True),
    "XAmzContentSHA256Mismatch": Failure(RemoteError, _ALTERED, again=True),
    "IncompleteBody": Failure(RemoteUnreachable, "the connection broke during the upload; check the network, then run again", again=True),
    "RequestTimeout": Failure(RemoteUnreachable, "the connection was too slow; check the network, then run again", again=True),
    # two writers at the same moment: one has to ask again which of them came first
    "ConditionalRequestConflict": Failure(RemoteUnreachable, "other clients keep writing {name}; find out which, then run again", again=True),
    "OperationAborted": Failure(RemoteUnreachable, "other clients keep changing the bucket; run again later", again=True),
    "InternalError": _BUSY,
    "ServiceUnavailable": _BUSY,
    "SlowDown": Failure(RemoteUnreachable, "the server is overloaded; run again later, with fewer `jobs`", again=True),
}  # fmt: skip
_STATUSES: t.Dict[int, Failure] = {
    401: Failure(RemoteRefused, "the server does not accept the credentials; correct those of this remote"),
    403: _NAMES["AccessDenied"],
    407: Failure(RemoteRefused, "the proxy refuses its credentials; correct them"),
    408: _NAMES["RequestTimeout"],
    425: _BUSY,
    429: _NAMES["SlowDown"],
    501: _NAMES["NotImplemented"],
    507: _NAMES["InsufficientStorage"],
}


#: By the exception's name: what the client lacks before it can ask.
_CLIENT = {
    "NoCredentialsError": "no credentials were found on this host; give this remote `credentials`",
    "PartialCredentialsError": "the credentials of this host are incomplete; complete them, or give this remote `credentials`",
    "ProfileNotFound": "this profile is not in the AWS configuration of this user; correct its name",
    "CredentialRetrievalError": "the credentials of this host could not be fetched; check where they come from, or give this remote `credentials`",
}


def of_answer(answer: Answer, doing: str, name: str, bucket: str) -> Failure:
    """What an error that a server told means.

    :param doing: what the request was to do, such as "write packs/x". :param name: of the object, or the prefix.
    """
    found = _NAMES.get(answer.code) or _STATUSES.get(answer.status)
    if found is None and answer.status >= 500:
        found = _BUSY
    if found is None:
        found = Failure(RemoteError, "the server refuses to {doing}: {message}; see its documentation")
    if found.kind is RemoteRefused and abs(_ahead(answer.headers)) > _MOST_SKEW:  # not all servers say that this is why
        found = _NAMES["RequestTimeTooSkewed"]
    message = brief(f"{answer.code} {answer.text}".strip() or f"HTTP {answer.status}", 300)
    code = "" if answer.code.isdigit() else answer.code
    status = f"HTTP {answer.status}" + (f" ({code})" if code else "") if answer.status else code
    text = found.text.format(doing=doing, name=name, bucket=bucket, status=status, message=message, skew=_skew(answer.headers))
    return found._replace(text=text, wait=_retry_after(answer.headers) if found.again else 0.0)


def of_exception(error: BaseException, host: str) -> t.Optional[Failure]:
    """What it means that there was no answer, or only a part of one; None for an exception that is not of the client or the network.

    :param host: whom the request was sent to, as shown.
    """
    import http.client  # only here: a start should not wait for what these bring
    import ssl

    if type(error).__name__ in _CLIENT:
        return Failure(RemoteRefused, _CLIENT[type(error).__name__])
    causes = _causes(error)
    names = {type(cause).__name__ for cause in causes}
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            told = brief(getattr(cause, "verify_message", "") or "verification failed", 200)
            return Failure(RemoteError, f"the certificate of {host} is not trusted: {told}; correct it there, or give its authority as `ca`", away=True)
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return Failure(RemoteUnreachable, f"the host name {host} does not resolve; correct the URL, or check DNS on this host", again=True, away=True)
    if "ProxyConnectionError" in names or "ProxyError" in names:
        return Failure(RemoteUnreachable, f"the proxy does not connect to {host}; check the proxy", again=True, away=True)
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return Failure(RemoteUnreachable, f"{host} refuses connections; check the URL, and that the server runs", again=True, away=True)
    if names & {"ConnectTimeoutError", "ConnectTimeout"}:
        return Failure(RemoteUnreachable, f"{host} does not answer; check the URL and the network", again=True, away=True)
    if names & {"ReadTimeoutError", "ReadTimeout"} or any(isinstance(cause, (socket.timeout, TimeoutError)) for cause in causes):
        return Failure(RemoteUnreachable, f"{host} does not answer in time; run again later", again=True)
    if any(isinstance(cause, ssl.SSLError) and not isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) for cause in causes):
        return Failure(RemoteUnreachable, f"{host} does not speak TLS; check the URL, and the network between", again=True, away=True)
    if "EndpointConnectionError" in names:
        return Failure(RemoteUnreachable, f"{host} cannot be reached; check the URL and the network", again=True, away=True)
    if "ResponseParserError" in names:  # a page of something else, or one of S3 that was cut
        return Failure(RemoteUnreachable, f"{host} does not answer as an S3 server does; check the URL, and proxies between", again=True)
    if names & _CUT or any(isinstance(cause, (OSError, http.client.HTTPException)) for cause in causes):
        return Failure(RemoteUnreachable, f"the connection to {host} breaks; check the network, then run again", again=True)
    if type(error).__module__.startswith(("botocore", "urllib3")):
        return Failure(RemoteError, f"the S3 client failed ({type(error).__name__}); check URL, credentials and proxy of this remote")
    return None


#: What botocore and urllib3 raise where an answer does not come, or not whole, or is no answer of S3.
_CUT = {
    "ConnectionClosedError", "IncompleteReadError", "ResponseStreamingError", "ProtocolError", "IncompleteRead",
    "InvalidChunkLength", "DecodeError",
}  # fmt: skip


def _causes(error: BaseException) -> t.List[BaseException]:
    """An exception and all that led to it. botocore and urllib3 keep some of them as arguments only."""
    found: t.List[BaseException] = []
    todo: t.List[t.Any] = [error]
    while todo and len(found) < 50:
        cause = todo.pop(0)
        if isinstance(cause, BaseException) and not any(cause is known for known in found):
            found.append(cause)
            todo += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args, *getattr(cause, "kwargs", {}).values()]
    return found


def clock(headers: t.Mapping[str, str]) -> t.Optional[float]:
    """The time of the Date header, in seconds since 1970; None where there is none."""
    return _http_date(headers.get("date", ""))


def _http_date(text: str) -> t.Optional[float]:
    """A date as in RFC 9110, in seconds since 1970; None for anything else."""
    try:
        import email.utils

        moment = email.utils.parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def _retry_after(headers: t.Mapping[str, str]) -> float:
    """The seconds of Retry-After, which may also be a date; 0 where there is none."""
    said = headers.get("retry-after", "")
    if said.isdigit():
        return float(said[:9])
    moment = _http_date(said)
    return max(moment - (clock(headers) or time.time()), 0.0) if moment is not None else 0.0


def _ahead(headers: t.Mapping[str, str]) -> float:
    """How far the clock of this host is ahead of that of the server, in seconds; 0 where the answer has no date."""
    theirs = clock(headers)
    return 0.0 if theirs is None else time.time() - theirs


def _skew(headers: t.Mapping[str, str]) -> str:
    minutes = round(_ahead(headers) / 60)
    return f"{abs(minutes)} minutes {'ahead of' if minutes > 0 else 'behind'} that of the server" if minutes else "wrong"
