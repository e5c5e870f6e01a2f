"""The official Python SDKs of Tencent Cloud (API 3.0) and of COS, against the simulated cloud."""

import datetime
import hashlib
import json
import os
import sys
import time
import urllib.request

from qcloud_cos import CosConfig, CosS3Client, CosServiceError
from tencentcloud.common import credential
from tencentcloud.common.exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.mongodb.v20190725 import models, mongodb_client

cloud = json.loads(os.environ["SIMULATED_CLOUDS"])["tencent"]
host = cloud["base_url"].removeprefix("http://")
INSTANCE, SHARDS = "cmgo-ledger01", ["cmgo-ledger01_0", "cmgo-ledger01_1", "cmgo-ledger01_2"]


def client(key=cloud["secret_key"], method="POST"):
    profile = HttpProfile(protocol="http", endpoint=host, reqMethod=method)
    keys = credential.Credential(cloud["secret_id"], key)
    return mongodb_client.MongodbClient(
        keys, cloud["region"], ClientProfile(httpProfile=profile, language="en-US")
    )


def call(name, of=None, **parameters):
    request = getattr(models, name + "Request")()
    request.from_json_string(json.dumps(parameters))
    return json.loads(getattr(of or client(), name)(request).to_json_string())


def code(name, of=None, **parameters):
    try:
        return call(name, of, **parameters)
    except TencentCloudSDKException as error:
        assert error.requestId, error
        return error.code


def newest():
    return call("DescribeDBBackups", InstanceId=INSTANCE)["BackupList"][0]["BackupName"]


def list_create_poll_download():
    listed = call("DescribeDBInstances", Limit=100, Offset=0)
    assert listed["TotalCount"] == len(listed["InstanceDetails"]) >= 2, listed
    backup = newest()
    sets = [{"ReplicaSetId": shard} for shard in SHARDS]
    created = call("CreateBackupDownloadTask", InstanceId=INSTANCE, BackupName=backup, BackupSets=sets)
    assert [task["ReplicaSetId"] for task in created["Tasks"]] == SHARDS, created
    end = time.monotonic() + 30
    while True:
        asked = {"InstanceId": INSTANCE, "BackupName": backup, "Limit": 100}
        tasks = call("DescribeBackupDownloadTask", **asked)["Tasks"]
        if all(task["Status"] == 2 for task in tasks):
            break
        assert time.monotonic() < end, tasks
        time.sleep(0.2)
    assert len(tasks) == 3, tasks
    for task in tasks:
        assert "%2F" in task["Url"], task
        whole = urllib.request.urlopen(task["Url"]).read()
        part = urllib.request.Request(task["Url"], headers={"Range": "bytes=0-9"})
        assert urllib.request.urlopen(part).read() == whole[:10]


def the_same_by_get():
    by_get = client(method="GET")
    for name, parameters in [
        ("DescribeDBBackups", {"InstanceId": INSTANCE, "BackupMethod": 1}),
        ("DescribeBackupDownloadTask", {"InstanceId": INSTANCE, "Status": [2], "Limit": 1}),
    ]:
        one, other = call(name, of=by_get, **parameters), call(name, **parameters)
        assert one["TotalCount"] == other["TotalCount"] > 0, (one, other)


def a_wrong_key_has_its_code():
    found = code("DescribeDBInstances", of=client(key="wrong"))
    assert found == "AuthFailure.SignatureFailure", found


def a_skewed_clock_has_its_code():
    true, off = time.time, datetime.timedelta(minutes=6).total_seconds()
    for sign in [-1, 1]:
        time.time = lambda: true() + sign * off
        try:
            found = code("DescribeDBInstances")
        finally:
            time.time = true
        assert found == "AuthFailure.SignatureExpire", found


def an_unknown_key_has_its_code():
    keys = credential.Credential("AKIDnobody", cloud["secret_key"])
    profile = ClientProfile(httpProfile=HttpProfile(protocol="http", endpoint=host))
    unknown = mongodb_client.MongodbClient(keys, cloud["region"], profile)
    assert code("DescribeDBInstances", of=unknown) == "AuthFailure.SecretIdNotFound"


def values_out_of_range_have_their_codes():
    for name in ["DescribeDBInstances", "DescribeDBBackups", "DescribeBackupDownloadTask"]:
        for limit in [0, 101]:
            found = code(name, InstanceId=INSTANCE, Limit=limit) if "Backup" in name else code(name, Limit=limit)
            assert found == "InvalidParameterValue.LimitParaOutOfRange", (name, limit, found)
    assert code("DescribeDBInstances", Offset=10001) == "InvalidParameterValue.OffsetParaOutOfRange"
    assert code("DescribeDBBackups") == "MissingParameter"
    assert code("DescribeDBBackups", InstanceId="cmgo-none") == "InvalidParameterValue.NotFoundInstance"
    asked = {"InstanceId": INSTANCE, "BackupName": "none", "BackupSets": []}
    assert code("CreateBackupDownloadTask", **asked) == "InvalidParameterValue.BackupFileNotFound"


def an_unknown_parameter_has_its_code():
    try:
        client().call_json("DescribeDBBackups", {"InstanceId": INSTANCE, "Colour": "red"})
    except TencentCloudSDKException as error:
        assert error.code == "UnknownParameter", error
    else:
        raise AssertionError("it was accepted")


FOLDER = "cmongo_backup/cmgo-archive1_0/snapshot/"


def bucket(key=cloud["secret_key"], id=cloud["secret_id"], **more):
    ip, port = cloud["bucket_url"].removeprefix("http://").split(":")
    keys = {"SecretId": id, "SecretKey": key}
    place = {"IP": ip, "Port": int(port)} if not more else more
    return CosS3Client(CosConfig(Region=cloud["region"], Scheme="http", **keys, **place))


def keys_by(of, size):
    marker, found = "", []
    while True:
        page = of.list_objects(Bucket=cloud["bucket"], Prefix=FOLDER, Marker=marker, MaxKeys=size)
        found += [entry["Key"] for entry in page.get("Contents", [])]
        if page["IsTruncated"] == "false":
            return found
        marker = page["NextMarker"]


def cos_lists_in_pages():
    whole = keys_by(bucket(), 1000)
    assert len(whole) > 3 and any(" " in key for key in whole), whole
    assert keys_by(bucket(), 2) == whole
    assert keys_by(bucket(Domain=cloud["bucket_url"].removeprefix("http://")), 3) == whole


def cos_reads_ranges_and_heads():
    of = bucket()
    for key in keys_by(of, 1000):
        head = of.head_object(Bucket=cloud["bucket"], Key=key)
        if int(head["Content-Length"]) < 20:
            continue
        part = of.get_object(Bucket=cloud["bucket"], Key=key, Range="bytes=10-19")
        assert part["Content-Range"].startswith("bytes 10-19/"), part
        whole = of.get_object(Bucket=cloud["bucket"], Key=key)["Body"].get_raw_stream().read()
        assert part["Body"].get_raw_stream().read() == whole[10:20]
        tags = [{name.lower(): value for name, value in of.items()}["etag"] for of in (head, part)]
        assert tags[0] == tags[1], tags


def cos_checks_its_digest():
    key = max(keys_by(bucket(), 1000), key=len)
    place = os.path.join(os.environ["SCRATCH"], "whole")
    bucket().download_file(Bucket=cloud["bucket"], Key=key, DestFilePath=place, PartSize=1, EnableCRC=True)
    assert hashlib.md5(open(place, "rb").read()).digest()


def cos_refusals_have_their_codes():
    for action, status, expected in [
        (lambda: bucket().get_object(Bucket=cloud["bucket"], Key="none"), 404, "NoSuchKey"),
        (lambda: bucket().list_objects(Bucket="other-1250000000"), 404, "NoSuchBucket"),
        (lambda: bucket(key="wrong").list_objects(Bucket=cloud["bucket"]), 403, "SignatureDoesNotMatch"),
        (lambda: bucket(id="AKIDnobody").list_objects(Bucket=cloud["bucket"]), 403, "InvalidAccessKeyId"),
        (lambda: bucket().list_objects(Bucket=cloud["bucket"], MaxKeys=1001), 400, "InvalidArgument"),
    ]:
        try:
            action()
        except CosServiceError as error:
            found = (error.get_status_code(), error.get_error_code())
            assert found == (status, expected), found
        else:
            raise AssertionError("it was accepted")


def a_link_is_signed_for_its_method_and_time():
    of, key = bucket(), max(keys_by(bucket(), 1000), key=len)
    link = of.get_presigned_url(Bucket=cloud["bucket"], Key=key, Method="GET", Expired=60)
    assert urllib.request.urlopen(link).status == 200
    for broken in [
        urllib.request.Request(link, method="HEAD"),
        urllib.request.Request(of.get_presigned_url(Bucket=cloud["bucket"], Key=key, Method="GET", Expired=-120)),
    ]:
        try:
            urllib.request.urlopen(broken)
        except urllib.error.HTTPError as error:
            assert error.code == 403, error
        else:
            raise AssertionError("it was accepted")


for test in [
    list_create_poll_download,
    the_same_by_get,
    a_wrong_key_has_its_code,
    an_unknown_key_has_its_code,
    a_skewed_clock_has_its_code,
    values_out_of_range_have_their_codes,
    an_unknown_parameter_has_its_code,
    cos_lists_in_pages,
    cos_reads_ranges_and_heads,
    cos_checks_its_digest,
    cos_refusals_have_their_codes,
    a_link_is_signed_for_its_method_and_time,
]:
    try:
        test()
        print(f"ok      Tencent Cloud's Python SDKs: {test.__name__}")
    except Exception as error:
        text = str(error).replace("\n", " ")
        print(f"FAILED  Tencent Cloud's Python SDKs: {test.__name__}: {type(error).__name__}: {text}")
sys.stdout.flush()
