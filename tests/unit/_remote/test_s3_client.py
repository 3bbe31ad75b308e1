# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""URLs of S3 remotes, and credentials, as users give them."""

from __future__ import annotations

import datetime

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import UsageError
from ansible_collections.volt.backup.plugins.module_utils._remote import s3_client
from ansible_collections.volt.backup.plugins.module_utils._remote.s3_client import Place


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://bucket", Place("bucket")),
        ("s3://bucket/", Place("bucket")),
        ("s3://a.b-c_d/x/y.z/", Place("a.b-c_d", "x/y.z")),
        ("s3://bucket/p?endpoint=https://host", Place("bucket", "p", "https://host")),
        ("s3://bucket/p?endpoint=https%3A%2F%2Fhost%3A9000%2F", Place("bucket", "p", "https://host:9000")),
        ("s3://bucket?endpoint=http://[::1]:7480&region=eu-central-1&style=virtual", Place("bucket", "", "http://[::1]:7480", "eu-central-1", "virtual")),
        ("s3://bucket?style=path&region=us-east-1", Place("bucket", "", "", "us-east-1", "path")),
    ],
)
def test_url(url: str, place: Place) -> None:
    assert s3_client.parse_url(url) == place
    assert s3_client.parse_url(place.url) == place


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("s3://", "The URL of an S3 remote is s3://BUCKET/PREFIX"),
        ("s3:bucket", "The URL of an S3 remote is s3://BUCKET/PREFIX"),
        ("s3://ab", "The URL of an S3 remote is s3://BUCKET/PREFIX"),
        ("http://bucket", "The URL of an S3 remote is s3://BUCKET/PREFIX"),
        ("s3://bucket#x", "The URL of an S3 remote is s3://BUCKET/PREFIX"),
        ("s3://bucket:80/x", "The URL of an S3 remote is s3://BUCKET/PREFIX"),
        ("s3://[x/y", "The URL of the remote is invalid; write it like s3://bucket/prefix?endpoint=https://host."),
        ("s3://bucket?endpoint", "The URL of the remote is invalid; write it like s3://bucket/prefix?endpoint=https://host."),
        ("s3://bucket/../x", "Prefix ../x of the remote is invalid"),
        ("s3://bucket/a//b", "Prefix a//b of the remote is invalid"),
        ("s3://bucket/ä", "Prefix ä of the remote is invalid"),
        ("s3://AK:hidden@bucket/x", "The URL of a remote must not contain credentials; remove them and use `credentials`."),
        ("s3://bucket?endpoint=https://u:hidden@host", "The endpoint of the remote must be http:// or https://"),
        ("s3://bucket?secret_key=hidden", "The URL of the remote has unknown option secret_key; use each of endpoint, region, style at most once"),
        ("s3://bucket?region=a&region=b", "The URL of the remote has an option twice"),
        ("s3://bucket?endpoint=host:9000", "The endpoint of the remote must be http:// or https://"),
        ("s3://bucket?endpoint=", "The endpoint of the remote must be http:// or https://"),
        ("s3://bucket?endpoint=https://host/path", "The endpoint of the remote must be http:// or https://"),
        ("s3://bucket?endpoint=https://host:99999", "The endpoint of the remote must be http:// or https://"),
        ("s3://bucket?endpoint=https://host?x=1", "The endpoint of the remote must be http:// or https://"),
        ("s3://bucket?region=a/b", "The region of the remote is invalid; write it like eu-central-1."),
        ("s3://bucket?region=", "The region of the remote is invalid; write it like eu-central-1."),
        ("s3://bucket?style=dns", "The style of the remote must be path or virtual."),
    ],
)
def test_bad_url(url: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        s3_client.parse_url(url)
    assert caught.value.message.startswith(sentence) and "hidden" not in caught.value.message


@pytest.mark.parametrize("text", ["2026-11-27T10:00:00.120Z", "2026-11-27T10:00:00Z", "2026-11-27T10:00:00.123456Z"])
def test_times_of_listings(text: str) -> None:
    found = s3_client._time(text)
    assert found is not None and found.utcoffset() == datetime.timedelta(0) and found.strftime("%Y-%m-%dT%H:%M:%S") == text[:19]
    assert found.microsecond == int((text[20:-1] or "0").ljust(6, "0"))


@pytest.mark.parametrize(
    "text",
    [
        "Fri, 27 Nov 2026 10:00:00 GMT",
        "2026-11-27T10:00:00+01:00",
        "2026-13-27T10:00:00Z",
        "",
        "1795771697",
        1795771697,
        None,
    ],
)
def test_times_that_the_client_parses_itself(text: object) -> None:
    assert s3_client._time(text) is None
