"""The PyPI package atlasapi (HTTP Digest, `Accept: */*`), on the legacy API."""

import json
import os

clouds = json.loads(os.environ["SIMULATED_CLOUDS"])
os.environ["BASE_URL"] = clouds["base_url"]

from atlasapi.atlas import Atlas
from atlasapi.cloud_backup import DeliveryType
from atlasapi.settings import Settings

Settings.BASE_URL = clouds["base_url"]
atlas = Atlas(clouds["public_key"], clouds["private_key"], clouds["project_id"])
snapshots = clouds["snapshots"]["ledger"]


def get_all_clusters():
    names = [cluster["name"] for cluster in atlas.Clusters.get_all_clusters(iterable=True)]
    assert names == ["orders", "catalogue", "sandbox", "ledger", "visits"], names


def get_single_cluster():
    cluster = atlas.Clusters.get_single_cluster("orders")
    assert cluster["providerSettings"]["instanceSizeName"] == "M2", cluster


def get_backup_snapshots_for_cluster():
    found = [each.id for each in atlas.CloudBackups.get_backup_snapshots_for_cluster("ledger")]
    assert found == snapshots, found


def get_backup_snapshot_for_cluster():
    (found,) = atlas.CloudBackups.get_backup_snapshot_for_cluster("ledger", snapshots[0])
    assert found.id == snapshots[0] and found.storage_size_bytes > 0, vars(found)


def request_snapshot_restore():
    job = atlas.CloudBackups.request_snapshot_restore(
        source_cluster_name="ledger",
        snapshot_id=snapshots[0],
        target_cluster_name="orders",
        delivery_type=DeliveryType.download,
    )
    assert job.snapshot_id == snapshots[0] and len(job.delivery_url) == 1, vars(job)


def newest_job():
    return next(atlas.CloudBackups.get_snapshot_restore_requests("ledger"))


def get_snapshot_restore_requests():
    job = newest_job()
    assert job.snapshot_id == snapshots[0] and not job.cancelled, vars(job)


def cancel_snapshot_restore_request():
    atlas.CloudBackups.cancel_snapshot_restore_request("ledger", newest_job().restore_id)
    assert newest_job().cancelled


for call in [
    get_all_clusters,
    get_single_cluster,
    get_backup_snapshots_for_cluster,
    get_backup_snapshot_for_cluster,
    request_snapshot_restore,
    get_snapshot_restore_requests,
    cancel_snapshot_restore_request,
]:
    try:
        call()
        print(f"ok      community Python client: {call.__name__}")
    except Exception as error:
        text = str(error).replace("\n", " ")
        print(f"FAILED  community Python client: {call.__name__}: {type(error).__name__}: {text}")
