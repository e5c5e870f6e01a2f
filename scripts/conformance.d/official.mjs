// MongoDB's own JavaScript client of the Atlas Administration API, as a service account.
//
// Its OAuth library refuses plain http, so the address stays https and the injected fetch leads
// every request to the simulation. `api.close()` is never called: its request does not use that
// fetch and would leave this machine.

import { ApiClient, ClientCredentialsAuthProvider } from "@mongodb-js/mcp-atlas-api-client";
import run from "./verdict.cjs";

const clouds = JSON.parse(process.env.SIMULATED_CLOUDS);
const baseUrl = "https://cloud.mongodb.com/";
const userAgent = "conformance/1.0";
const logger = { error() {}, info() {}, debug() {}, warning() {} };
const asked = [];

function here(address) {
  const { pathname, search } = new URL(address);
  asked.push(pathname);
  return clouds.base_url + pathname + search;
}

const httpClient = {
  Request: globalThis.Request,
  async fetch(input, init) {
    if (!(input instanceof Request)) {
      return fetch(here(String(input)), init);
    }
    const { method, headers } = input;
    const body = input.body ? await input.text() : undefined;
    return fetch(here(input.url), { method, headers, body });
  },
};

function client(clientSecret) {
  const credentials = { baseUrl, clientId: clouds.client_id, clientSecret, userAgent, httpClient };
  const authProvider = new ClientCredentialsAuthProvider(credentials, logger);
  return new ApiClient({ options: { baseUrl, userAgent, httpClient }, logger, authProvider });
}

const api = client(clouds.client_secret);
const groupId = clouds.project_id;
const clusterName = "ledger";
const [snapshotId] = clouds.snapshots[clusterName];
const backup = "/api/atlas/v2/groups/{groupId}/clusters/{clusterName}/backup";
const path = { groupId, clusterName };
const flexPath = { groupId, name: "reviews" };
const flexBackup = "/api/atlas/v2/groups/{groupId}/flexClusters/{name}/backup";
const sharded = { groupId, clusterName: "visits" };
const [wholeId] = clouds.snapshots.visits;
let job;

/** The first bytes of every archive. */
async function isArchive(assert, url) {
  const answer = await fetch(url);
  assert.equal(answer.status, 200);
  assert.deepEqual([...new Uint8Array(await answer.arrayBuffer(), 0, 2)], [0x1f, 0x8b]);
}

async function code(answer, assert, expected) {
  const { error } = await answer;
  assert.equal(error?.errorCode, expected);
}

async function knobs(change) {
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify(change);
  const answer = await fetch(`${clouds.base_url}/_sim/knobs`, { method: "POST", headers, body });
  if (!answer.ok) throw new Error(await answer.text());
}

await run("official JavaScript client", {
  async listGroups(assert) {
    const { results } = await api.listGroups();
    assert.deepEqual(results.map((group) => group.id), [groupId]);
  },
  async listClusterDetails(assert) {
    const { results } = await api.listClusterDetails();
    assert.equal(results[0].clusters.length, 6);
  },
  async listClusters(assert) {
    const { results } = await api.listClusters({ params: { path: { groupId } } });
    const sizes = results.map(
      (cluster) => cluster.replicationSpecs[0].regionConfigs[0].electableSpecs.instanceSize,
    );
    assert.deepEqual(sizes, ["M2", "M5", "M0", "M10", "M10"]);
    assert.deepEqual(results.map((cluster) => cluster.replicationSpecs.length), [1, 1, 1, 1, 2]);
  },
  async "listClusters, with deleted ones"(assert) {
    const query = { includeDeletedWithRetainedBackups: true };
    const { results } = await api.listClusters({ params: { path: { groupId }, query } });
    assert.deepEqual(results.slice(5).map((c) => [c.name, c.stateName]), [["legacy", "DELETED"]]);
  },
  async getCluster(assert) {
    const cluster = await api.getCluster({ params: { path } });
    assert.equal(cluster.name, clusterName);
  },
  async listFlexClusters(assert) {
    const { results } = await api.listFlexClusters({ params: { path: { groupId } } });
    assert.deepEqual(results.map((cluster) => cluster.name), ["reviews"]);
  },
  async getFlexCluster(assert) {
    const cluster = await api.getFlexCluster({ params: { path: flexPath } });
    assert.equal(cluster.providerSettings.providerName, "FLEX");
  },
  async "a Flex cluster is in its own API only"(assert) {
    const params = { path: { groupId, clusterName: "reviews" } };
    const asCluster = api.client.GET(`${backup}/snapshots`, { params });
    await code(asCluster, assert, "CANNOT_USE_FLEX_CLUSTER_IN_CLUSTER_API");
    const other = { params: { path: { groupId, name: clusterName } } };
    const asFlex = api.client.GET(`${flexBackup}/snapshots`, other);
    await code(asFlex, assert, "CANNOT_USE_NON_FLEX_CLUSTER_IN_FLEX_API");
  },
  async "list flexClusters/…/backup/snapshots"(assert) {
    const { data } = await api.client.GET(`${flexBackup}/snapshots`, { params: { path: flexPath } });
    assert.deepEqual(data.results.map((snapshot) => snapshot.id), clouds.snapshots.reviews);
  },
  async "download a Flex snapshot, pending until it is completed"(assert) {
    await knobs({ task_time: 300 });
    const body = { snapshotId: clouds.snapshots.reviews[0] };
    const made = await api.client.POST(`${flexBackup}/download`, { params: { path: flexPath }, body });
    await knobs({ task_time: 0 });
    assert.deepEqual([made.data.instanceName, made.data.status], ["reviews", "PENDING"]);
    const params = { path: { ...flexPath, restoreJobId: made.data.id } };
    let found;
    do {
      found = (await api.client.GET(`${flexBackup}/restoreJobs/{restoreJobId}`, { params })).data;
    } while (found.status !== "COMPLETED");
    await isArchive(assert, found.snapshotUrl);
  },
  async "list backup/snapshots, one page"(assert) {
    const params = { path, query: { itemsPerPage: 2, pageNum: 1 } };
    const { data } = await api.client.GET(`${backup}/snapshots`, { params });
    assert.equal(data.results.length, 2);
    assert.equal(data.totalCount, clouds.snapshots[clusterName].length);
    assert.deepEqual(data.links.map((link) => link.rel), ["self", "next"]);
  },
  async "get backup/snapshots/{id}"(assert) {
    const params = { path: { ...path, snapshotId } };
    const { data } = await api.client.GET(`${backup}/snapshots/{snapshotId}`, { params });
    assert.equal(data.status, "completed");
  },
  async "create backup/restoreJobs, at work until it is ready"(assert) {
    await knobs({ task_time: 300 });
    const body = { deliveryType: "download", snapshotId };
    const { data } = await api.client.POST(`${backup}/restoreJobs`, { params: { path }, body });
    job = data;
    assert.deepEqual([job.snapshotId, job.deliveryUrl], [snapshotId, []]);
    const twice = api.client.POST(`${backup}/restoreJobs`, { params: { path }, body });
    await code(twice, assert, "CANNOT_DOWNLOAD_SNAPSHOT_CONCURRENTLY");
    await knobs({ task_time: 0 });
  },
  async "get backup/restoreJobs/{id}, whose link works once"(assert) {
    const params = { path: { ...path, restoreJobId: job.id } };
    const look = async () =>
      (await api.client.GET(`${backup}/restoreJobs/{restoreJobId}`, { params })).data;
    let found;
    do {
      found = await look();
    } while (found.deliveryUrl.length === 0);
    await isArchive(assert, found.deliveryUrl[0]);
    assert.equal((await fetch(found.deliveryUrl[0])).status, 404);
    const used = await look();
    assert.deepEqual([used.deliveryUrl, typeof used.finishedAt], [[], "string"]);
  },
  async "list backup/snapshots/shardedClusters"(assert) {
    const { data } = await api.client.GET(`${backup}/snapshots/shardedClusters`, {
      params: { path: sharded },
    });
    const members = data.results[0].members.map((member) => member.replicaSetName);
    assert.deepEqual(members, ["visits-shard-0", "visits-shard-1", "config"]);
  },
  async "get backup/snapshots/shardedCluster/{id}"(assert) {
    const params = { path: { ...sharded, snapshotId: wholeId } };
    const { data } = await api.client.GET(`${backup}/snapshots/shardedCluster/{snapshotId}`, {
      params,
    });
    assert.deepEqual([data.id, data.type], [wholeId, "shardedCluster"]);
  },
  async "create backup/restoreJobs of a sharded cluster"(assert) {
    const body = { deliveryType: "download", snapshotId: wholeId };
    const params = { path: sharded };
    const { data } = await api.client.POST(`${backup}/restoreJobs`, { params, body });
    assert.equal(data.components.length, 3);
    for (const { downloadUrl } of data.components) await isArchive(assert, downloadUrl);
  },
  async "cancel backup/restoreJobs/{id}"(assert) {
    const body = { deliveryType: "download", snapshotId };
    const { data } = await api.client.POST(`${backup}/restoreJobs`, { params: { path }, body });
    const one = { params: { path: { ...path, restoreJobId: data.id } } };
    const { response } = await api.client.DELETE(`${backup}/restoreJobs/{restoreJobId}`, one);
    assert.equal(response.status, 204);
    assert.equal((await fetch(data.deliveryUrl[0])).status, 404);
  },
  async "an unknown cluster is an error with its code"(assert) {
    const params = { path: { groupId, clusterName: "unknown" } };
    await assert.rejects(api.getCluster({ params }), { message: /No cluster named unknown/ });
  },
  async "an empty bucket is a 429"(assert) {
    await knobs({ limits: { groups: { capacity: 0, refill: 1 } } });
    await assert.rejects(api.listGroups(), { message: /Rate limit exceeded/ });
    await knobs({ limits: {} });
    await api.listGroups();
  },
  async "one token serves all calls"(assert) {
    assert.equal(asked.filter((path) => path === "/api/oauth/token").length, 1);
  },
  async "a wrong secret is refused"(assert) {
    await assert.rejects(client("mdb_sa_sk_wrong").listGroups());
  },
});
