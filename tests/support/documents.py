"""Fills a MongoDB server with documents of many BSON types, or tells a digest of what it holds.

    documents.py fill URI COUNT     writes COUNT documents over three databases
    documents.py digest URI         prints {"db.collection": {"count": n, "sha256": "..."}}

The digest covers the raw BSON of every document in order of _id, so equal digests mean equal bytes.
"""

import datetime
import hashlib
import json
import random
import sys
import uuid

from bson import (
    Binary, Code, CodecOptions, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp,
)
from bson.binary import UuidRepresentation
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

PLACES = [("shop", "orders"), ("shop", "customers"), ("telemetry", "events.raw"), ("größe", "имена")]


def document(number, rng):
    return {
        "_id": number if number % 3 else ObjectId(number.to_bytes(12, "big")),
        "double": rng.uniform(-1e300, 1e300),
        "nan": float("nan"),
        "string": "Zoë 🍃 " + "x" * rng.randrange(200),
        "object": {"nested": {"deep": [number, {"er": None}]}, "empty": {}},
        "array": [1, "two", 3.0, [], {}],
        "binary": Binary(rng.randbytes(rng.randrange(400)), 0),
        "uuid": Binary.from_uuid(uuid.UUID(int=rng.getrandbits(128)), UuidRepresentation.STANDARD),
        "objectid": ObjectId(rng.randbytes(12)),
        "bool": bool(number % 2),
        "date": datetime.datetime(1960, 1, 1) + datetime.timedelta(milliseconds=rng.randrange(10**13)),
        "null": None,
        "regex": Regex("^a.*b$", "im"),
        "code": Code("function () { return 1 }"),
        "int32": rng.randrange(-(2**31), 2**31),
        "timestamp": Timestamp(rng.randrange(2**31), rng.randrange(2**31)),
        "int64": Int64(rng.randrange(-(2**63), 2**63)),
        "decimal": Decimal128(str(rng.randrange(10**30)) + "E-15"),
        "min": MinKey(),
        "max": MaxKey(),
    }


def fill(client, count):
    rng = random.Random(20240229)
    for place, (database, collection) in enumerate(PLACES):
        numbers = range(place, count, len(PLACES))
        batch = [document(number, rng) for number in numbers]
        client[database][collection].insert_many(batch)


def digest(client):
    raw = CodecOptions(document_class=RawBSONDocument)
    result = {}
    for database, collection in PLACES:
        sha = hashlib.sha256()
        count = 0
        for found in client[database].get_collection(collection, raw).find().sort("_id", 1):
            sha.update(found.raw)
            count += 1
        result[f"{database}.{collection}"] = {"count": count, "sha256": sha.hexdigest()}
    return result


def main():
    command, uri = sys.argv[1:3]
    client = MongoClient(uri, serverSelectionTimeoutMS=20000)
    if command == "fill":
        fill(client, int(sys.argv[3]))
    elif command == "digest":
        json.dump(digest(client), sys.stdout, ensure_ascii=False, sort_keys=True)
    else:
        sys.exit(f"unknown command {command}")


if __name__ == "__main__":
    main()
