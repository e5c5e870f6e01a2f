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
let job;

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
    assert.equal(results[0].clusters.length, 4);
  },
  async listClusters(assert) {
    const { results } = await api.listClusters({ params: { path: { groupId } } });
    const sizes = results.map(
      (cluster) => cluster.replicationSpecs[0].regionConfigs[0].electableSpecs.instanceSize,
    );
    assert.deepEqual(sizes, ["M2", "M5", "M0", "M10"]);
  },
  async getCluster(assert) {
    const cluster = await api.getCluster({ params: { path } });
    assert.equal(cluster.name, clusterName);
  },
  async listFlexClusters(assert) {
    const { results } = await api.listFlexClusters({ params: { path: { groupId } } });
    assert.deepEqual(results, []);
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
  async "create backup/restoreJobs"(assert) {
    const body = { deliveryType: "download", snapshotId };
    const { data } = await api.client.POST(`${backup}/restoreJobs`, { params: { path }, body });
    job = data;
    assert.equal(job.snapshotId, snapshotId);
    const bytes = await (await fetch(job.deliveryUrl[0])).arrayBuffer();
    assert.deepEqual([...new Uint8Array(bytes, 0, 2)], [0x1f, 0x8b]);
  },
  async "get backup/restoreJobs/{id}"(assert) {
    const params = { path: { ...path, restoreJobId: job.id } };
    const { data } = await api.client.GET(`${backup}/restoreJobs/{restoreJobId}`, { params });
    assert.deepEqual(data.deliveryUrl, job.deliveryUrl);
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
