"""Alibaba Cloud's official Python clients: dds and dbs (signature version 3 and the classic one),
oss2 and alibabacloud-oss-v2 (signature versions 1 and 4). They walk the whole cycle: list, create,
poll, link, read."""

import json
import os
import time
import urllib.request

import alibabacloud_oss_v2
import oss2
from alibabacloud_dbs20210101 import models as dbs_models
from alibabacloud_dbs20210101.client import Client as Dbs
from alibabacloud_dds20151201 import models as dds_models
from alibabacloud_dds20151201.client import Client as Dds
from alibabacloud_tea_openapi.utils_models import Config

cloud = json.loads(os.environ["SIMULATED_CLOUDS"])["aliyun"]
KEY, SECRET, REGION = cloud["access_key_id"], cloud["access_key_secret"], "cn-hangzhou"
BUCKET, STORE = cloud["bucket"], cloud["oss_endpoint"]
REPLICA_SET, CLUSTER = "dds-bp1invoices", "dds-bp2events"


def config(**more):
    host = cloud["endpoint"].removeprefix("http://")
    return Config(
        access_key_id=KEY,
        access_key_secret=SECRET,
        region_id=REGION,
        endpoint=host,
        protocol="http",
        **more,
    )


def backups(client):
    request = dds_models.DescribeBackupsRequest(
        dbinstance_id=REPLICA_SET,
        start_time="2020-01-01T00:00Z",
        end_time="2099-01-01T00:00Z",
        page_size=30,
    )
    return client.describe_backups(request).body.backups.backup


def instances():
    client = Dds(config())
    found = {}
    for kind in ["replicate", "sharding"]:
        request = dds_models.DescribeDBInstancesRequest(region_id=REGION, dbinstance_type=kind)
        listed = client.describe_dbinstances(request).body.dbinstances.dbinstance
        found[kind] = [instance.dbinstance_id for instance in listed]
    assert REPLICA_SET in found["replicate"] and found["sharding"] == [CLUSTER], found


def backups_by_both_signatures():
    for client in [Dds(config()), Dds(config(signature_algorithm="v2"))]:
        assert [backup.backup_status for backup in backups(client)] == ["Success"] * 3


def cluster_backups():
    request = dds_models.DescribeClusterBackupsRequest(dbinstance_id=CLUSTER)
    (backup,) = Dds(config()).describe_cluster_backups(request).body.cluster_backups
    assert len(backup.backups) == 2, backup


def a_wrong_key_is_refused():
    wrong = config()
    wrong.access_key_secret = "wrong"
    try:
        backups(Dds(wrong))
    except Exception as error:
        assert error.code == "SignatureDoesNotMatch", error
        return
    raise AssertionError("a wrong key was accepted")


def create(client, **target):
    request = dbs_models.CreateDownloadRequest(
        region_code=REGION,
        instance_name=REPLICA_SET,
        bak_set_id=backups(Dds(config()))[0].backup_id,
        bak_set_type="full",
        format_type="bson",
        is_cluster="false",
        **target,
    )
    return client.create_download(request).body


def finished(client, task):
    request = dbs_models.DescribeDownloadTaskRequest(
        region_code=REGION, instance_name=REPLICA_SET, current_page="1", page_size="10"
    )
    for _ in range(100):
        listed = client.describe_download_task(request).body.data.content.list
        (found,) = [each for each in listed if each.task_id == task]
        if found.download_status == "finished":
            return found
        time.sleep(0.05)
    raise AssertionError(found.download_status)


def a_task_and_its_link_by_both_signatures():
    client = Dbs(config())
    support = dbs_models.DescribeDownloadSupportRequest(region_code=REGION, instance_name=REPLICA_SET)
    assert client.describe_download_support(support).body.data == "true"
    created = create(client, target_type="URL")
    assert created.success == "true", created
    finished(Dbs(config(signature_algorithm="v2")), created.data.task_id)
    # Business errors come with HTTP 200 and are not raised.
    again = create(client, target_type="URL")
    assert (again.success, again.code) == ("false", "DBS.DownloadTask.JobAlreadyExist"), again
    request = dbs_models.DescribeDownloadBackupSetStorageInfoRequest(
        region_code=REGION, task_id=created.data.task_id, duration="7200"
    )
    link = client.describe_download_backup_set_storage_info(request).body.data.public_url
    ranged = urllib.request.Request(link, headers={"Range": "bytes=0-1"})
    with urllib.request.urlopen(ranged) as answer:
        size = int(answer.headers["Content-Range"].split("/")[1])
        assert (answer.status, answer.read()) == (206, b"\x1f\x8b")
    beyond = urllib.request.Request(link, headers={"Range": f"bytes={size}-"})
    with urllib.request.urlopen(beyond) as answer:
        assert (answer.status, len(answer.read())) == (200, size), "the whole object is sent"


def a_task_into_the_bucket_read_by_oss2():
    target = {"target_bucket": BUCKET, "target_oss_region": REGION, "target_path": "conformance/a b+c"}
    created = create(Dbs(config()), target_type="OSS", **target)
    finished(Dbs(config()), created.data.task_id)
    for auth in [oss2.Auth(KEY, SECRET), oss2.AuthV4(KEY, SECRET)]:
        bucket = oss2.Bucket(auth, STORE, BUCKET, region=REGION)
        (found,) = oss2.ObjectIteratorV2(bucket, prefix="conformance/", max_keys=2)
        assert found.key.startswith("conformance/a b+c/"), found.key
        whole = bucket.get_object(found.key)
        # The client compares the checksum that the store sends.
        content = whole.read()
        assert len(content) == found.size == bucket.head_object(found.key).content_length
        standard = {"x-oss-range-behavior": "standard"}
        part = bucket.get_object(found.key, byte_range=(1, 3), headers=standard)
        assert part.read() == content[1:4]
        link = bucket.sign_url("GET", found.key, 600, slash_safe=True)
        with urllib.request.urlopen(link) as answer:
            assert answer.read() == content


def the_bucket_read_by_oss_v2():
    for version in ["v1", "v4"]:
        settings = alibabacloud_oss_v2.config.load_default()
        credentials = alibabacloud_oss_v2.credentials
        settings.credentials_provider = credentials.StaticCredentialsProvider(KEY, SECRET)
        settings.region, settings.endpoint = REGION, STORE
        settings.signature_version = version
        client = alibabacloud_oss_v2.Client(settings)
        listing = alibabacloud_oss_v2.ListObjectsV2Request(bucket=BUCKET, prefix="conformance/")
        (found,) = client.list_objects_v2(listing).contents
        with client.open_file(BUCKET, found.key) as file:
            file.seek(0)
            assert file.read(2) == b"\x1f\x8b"


for call in [
    instances,
    backups_by_both_signatures,
    cluster_backups,
    a_wrong_key_is_refused,
    a_task_and_its_link_by_both_signatures,
    a_task_into_the_bucket_read_by_oss2,
    the_bucket_read_by_oss_v2,
]:
    try:
        call()
        print(f"ok      official Alibaba Cloud clients: {call.__name__}")
    except Exception as error:
        text = str(error).replace("\n", " ")
        print(f"FAILED  official Alibaba Cloud clients: {call.__name__}: {type(error).__name__}: {text}")
