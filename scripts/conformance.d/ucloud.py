"""UCloud's official Python clients: the SDK for every call of UMongoDB that backups need, and ufile,
the file store's own, whose links the simulated store must accept as it accepts those of the API.

To be run with `python -I`: this file has the name of the SDK's package."""

import http.client
import json
import logging
import os
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import ufile.config
from ucloud.client import Client
from ucloud.core import exc
from ufile.filemanager import FileManager

cloud = json.loads(os.environ["SIMULATED_CLOUDS"])["ucloud"]
PUBLIC, PRIVATE = cloud["public_key"], cloud["private_key"]
SET, CLUSTER, ZONE = "umongodb-stock", "umongodb-visits", "cn-bj2-05"


def client(private=PRIVATE, project=cloud["project_id"]):
    return Client(
        {
            "region": cloud["region"],
            "project_id": project,
            "public_key": PUBLIC,
            "private_key": private,
            "base_url": cloud["endpoint"] + "/",
            "timeout": 5,
            "max_retries": 0,
            # It would print links.
            "log_level": logging.CRITICAL,
        }
    )


def backups(cluster):
    asked = {"Zone": ZONE, "ClusterId": cluster}
    return client().umongodb().list_umon_go_db_backup(asked)["DataSet"]


def link(**more):
    asked = {"ClusterId": SET, "Zone": ZONE, "ValidTime": 14400, **more}
    return client().umongodb().describe_umon_go_db_backup_url(asked)


def refused(call, /, **given):
    try:
        call(**given)
    except exc.RetCodeException as error:
        assert not error.retryable or error.code > 2000, error
        return error.code
    raise AssertionError("it was accepted")


def knobs(**change):
    request = urllib.request.Request(
        cloud["endpoint"] + "/_sim/knobs",
        json.dumps(change).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request).read()


def projects_and_regions():
    account = client().uaccount()
    assert [one["ProjectId"] for one in account.get_project_list({})["ProjectSet"]] == [cloud["project_id"]]
    assert {one["Region"] for one in account.get_region({})["Regions"]} == {cloud["region"]}


def instances():
    listed = client().umongodb().list_umon_go_db_instances({})["DataSet"]
    assert {one["ClusterId"]: one["ClusterType"] for one in listed} == {
        SET: "ReplicaSet",
        CLUSTER: "SharedCluster",
    }, listed
    for cluster in [SET, CLUSTER]:
        found = client().umongodb().describe_umon_go_db_instance({"ClusterId": cluster})
        assert found["ClusterInfo"]["ClusterId"] == cluster, found


def backups_of_both_kinds():
    assert len(backups(SET)) == 2
    rows = backups(CLUSTER)
    assert len({row["BatchId"] for row in rows}) == 1 and len(rows) == 3, rows
    assert [row["ReplicaType"] for row in rows] == ["DataRepl", "DataRepl", "ConfigRepl"], rows


def links_are_read_whole_and_in_part():
    addresses = link(BackupId=backups(SET)[0]["BackupId"])
    for address in [addresses["InternetAddress"], addresses["IntranetAddress"]]:
        whole = urllib.request.urlopen(address).read()
        assert whole[:2] == b"\x1f\x8b"
        part = urllib.request.Request(address, headers={"Range": "bytes=10-19"})
        part = urllib.request.urlopen(part)
        assert part.status == 206 and part.read() == whole[10:20]


def logs_of_operations_have_links():
    asked = {"Zone": ZONE, "ClusterId": SET}
    listed = client().umongodb().list_umon_go_db_log_package(asked)["DataSet"]
    logs = [one for one in listed if one["PackageType"] == "Oplog"]
    assert len(logs) == 2 < len(listed), listed
    address = link(Category="oplog", PackageId=logs[0]["Id"])["InternetAddress"]
    assert len(urllib.request.urlopen(address).read()) == logs[0]["Size"]


def an_untyped_call_has_its_envelope():
    backup = backups(SET)[0]["BackupId"]
    asked = {"ClusterId": SET, "BackupId": backup}
    answer = client().invoke("DescribeUMongoDBBackupURL", asked)
    assert answer["RetCode"] == 0 and answer["Action"] == "DescribeUMongoDBBackupURLResponse", answer


def refusals_have_their_codes():
    assert refused(client(private="wrong").umongodb().list_umon_go_db_instances, req={}) == 171
    assert refused(client(project="org-none").umongodb().list_umon_go_db_instances, req={}) == 292
    assert refused(client().invoke, action="DeleteEverything", args={}) == 161
    assert refused(link, BackupId="none") > 8000
    try:
        client().umongodb().list_umon_go_db_backup({"ClusterId": SET})
    except exc.ValidationException:
        pass
    else:
        raise AssertionError("the zone is not optional")


def every_reading_is_understood():
    """What the documents leave open is switched in the simulation; the SDK reads all of it."""
    usual = json.load(urllib.request.urlopen(cloud["endpoint"] + "/_sim/knobs"))
    for change in [
        {"numbers_as_text": True},
        {"bare_rows": True},
        {"empty_list": "missing", "oplogs": "nowhere"},
        {"empty_list": "null", "oplogs": "nowhere"},
        {"style": "s3"},
        {"escaped_signature": True},
    ]:
        try:
            knobs(**change)
            row = backups(SET)[0]
            client().umongodb().list_umon_go_db_log_package({"Zone": ZONE, "ClusterId": SET})
            address = link(BackupId=row["BackupId"])["InternetAddress"]
            assert urllib.request.urlopen(address).read(2) == b"\x1f\x8b", change
        finally:
            knobs(**usual)
    try:
        knobs(sharded_links=False)
        asked = {"ClusterId": CLUSTER, "BackupId": backups(CLUSTER)[0]["BackupId"]}
        assert refused(client().umongodb().describe_umon_go_db_backup_url, req=asked) > 8000
    finally:
        knobs(**usual)


def of_the_store(url, method="GET"):
    """The answer to an official link, whose host names the bucket, from the simulated store."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port)
    connection.request(method, f"{parts.path}?{parts.query}", headers={"Host": parts.netloc})
    return connection.getresponse()


def links_of_the_stores_own_client():
    suffix = ".localhost:" + cloud["store"].rsplit(":", 1)[1]
    ufile.config.set_default(downloadsuffix=suffix)
    address = link(BackupId=backups(SET)[0]["BackupId"])["InternetAddress"]
    key = urlsplit(address).path.lstrip("/")
    files = FileManager(PUBLIC, PRIVATE)
    good = files.private_download_url(cloud["bucket"], key, expires=60)
    answer = of_the_store(good)
    assert answer.status == 200, answer.read()
    assert answer.read() == urllib.request.urlopen(address).read()
    for url, method, status, code in [
        (good, "HEAD", 403, None),
        (FileManager(PUBLIC, "wrong").private_download_url(cloud["bucket"], key, expires=60), "GET", 403, -148643),
        (files.private_download_url(cloud["bucket"], "none", expires=60), "GET", 404, -148654),
        (files.private_download_url("another", key, expires=60), "GET", 400, -148653),
        (good.split("?")[0], "GET", 401, -148643),
    ]:
        answer = of_the_store(url, method)
        body = answer.read()
        assert answer.status == status, (url, answer.status, body)
        assert code is None or json.loads(body)["RetCode"] == code, body
    ending = files.private_download_url(cloud["bucket"], key, expires=1)
    time.sleep(1.1)
    answer = of_the_store(ending)
    assert (answer.status, json.loads(answer.read())["RetCode"]) == (403, -148660)


for test in [
    projects_and_regions,
    instances,
    backups_of_both_kinds,
    links_are_read_whole_and_in_part,
    logs_of_operations_have_links,
    an_untyped_call_has_its_envelope,
    refusals_have_their_codes,
    every_reading_is_understood,
    links_of_the_stores_own_client,
]:
    try:
        test()
        print(f"ok      official UCloud clients: {test.__name__}", flush=True)
    except Exception as error:
        text = str(error).replace("\n", " ")
        print(f"FAILED  official UCloud clients: {test.__name__}: {type(error).__name__}: {text}", flush=True)
