# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The rights that the credentials of a host need on S3, as a policy: what a push asks for, and nothing else.

A host writes below its own name, where the storage can refuse it only new names, and reads its own objects, the tombstones and `volt.json`. It lists the
bucket: without that, S3 answers 403 for an object that does not exist. It removes its intents, and nothing else. Making a remote needs more.

Source: Amazon S3 User Guide, "Actions, resources, and condition keys" and "Enforce conditional writes".
"""

from __future__ import annotations

import typing as t

from . import names
from .s3_client import Place

Policy = t.Dict[str, t.Any]
#: Of ARNs, by how the names of their regions begin.
_PARTITIONS = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}


def of_host(place: Place, host: str) -> Policy:
    """An identity policy. A bucket policy needs a `Principal` in each statement, too. :param host: what the host is called on the remote."""
    partition = next((name for start, name in _PARTITIONS.items() if place.region.startswith(start)), "aws")
    bucket = f"arn:{partition}:s3:::{place.bucket}"
    top = f"{bucket}/{place.prefix}/" if place.prefix else f"{bucket}/"
    own = [f"{top}{kind}{host}/*" for kind in (names.INTENTS, names.PACKS, names.INDEXES, names.COMMITS)]
    create = _allow("CreateOwn", "s3:PutObject", own)
    if not place.endpoint:  # other servers do not know this condition, and would refuse everything
        create["Condition"] = {"Null": {"s3:if-none-match": "false"}}
    statements = [
        _allow("List", "s3:ListBucket", [bucket]),
        _allow("Read", "s3:GetObject", [f"{top}{names.ABOUT}", *own, f"{top}{names.HEADS}{host}", f"{top}{names.TOMBSTONES}*"]),
        create,
        _allow("ReplaceHead", "s3:PutObject", [f"{top}{names.HEADS}{host}"]),
        _allow("EndIntent", "s3:DeleteObject", [f"{top}{names.INTENTS}{host}/*"]),
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(name: str, action: str, resources: t.List[str]) -> Policy:
    return {"Sid": name, "Effect": "Allow", "Action": action, "Resource": resources}
