# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The rights that the credentials of a host need on S3, as a policy: what a push asks for, and nothing else.

A host that uses packs of others (`share: domain`) also reads their indexes to find these, the lists of packs that were vetted, and their packs
to restore.

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


def of_host(place: Place, host: str, share: bool = False, lock: t.Optional[int] = None) -> Policy:
    """An identity policy. A bucket policy needs a `Principal` in each statement, too.

    :param host: what the host is called on the remote. :param share: it uses packs of other hosts.
    :param lock: days for which objects are locked; versions of them are read. On AWS, the host cannot lock for longer.
    """
    partition = next((name for start, name in _PARTITIONS.items() if place.region.startswith(start)), "aws")
    bucket = f"arn:{partition}:s3:::{place.bucket}"
    top = f"{bucket}/{place.prefix}/" if place.prefix else f"{bucket}/"
    own = [f"{top}{kind}{host}/*" for kind in (names.INTENTS, names.PACKS, names.INDEXES, names.COMMITS)]
    others = [f"{top}{kind}*" for kind in (names.INDEXES, names.PACKS, names.VETTED)] if share else []
    create, keep = _allow("CreateOwn", ["s3:PutObject"], own), _allow("LockOwn", ["s3:PutObjectRetention"], own)
    if not place.endpoint:  # other servers do not know these conditions, and would refuse everything
        create["Condition"] = {"Null": {"s3:if-none-match": "false"}}
        keep["Condition"] = {"NumericLessThanEquals": {"s3:object-lock-remaining-retention-days": str(lock)}}
    lists, reads = ["s3:ListBucket", *(["s3:ListBucketVersions"] if lock else [])], ["s3:GetObject", *(["s3:GetObjectVersion"] if lock else [])]
    readable = [f"{top}{names.ABOUT}", *own, f"{top}{names.HEADS}{host}", f"{top}{names.TOMBSTONES}*", *others]
    statements = [
        _allow("List", lists, [bucket]),
        _allow("Read", reads, readable),
        create,
        *([keep] if lock else []),
        _allow("ReplaceHead", ["s3:PutObject"], [f"{top}{names.HEADS}{host}"]),
        _allow("EndIntent", ["s3:DeleteObject"], [f"{top}{names.INTENTS}{host}/*"]),
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(name: str, actions: t.List[str], resources: t.List[str]) -> Policy:
    return {"Sid": name, "Effect": "Allow", "Action": actions[0] if len(actions) == 1 else actions, "Resource": resources}
