// The npm package mongodb-atlas-api-client (HTTP Digest), on the legacy and on the versioned API.

const connect = require("mongodb-atlas-api-client");
const run = require("./verdict.cjs");

const clouds = JSON.parse(process.env.SIMULATED_CLOUDS);
const cluster = "ledger";
const ids = clouds.snapshots[cluster];

async function journey(edition, snapshotId, options) {
  const client = connect({
    publicKey: clouds.public_key,
    privateKey: clouds.private_key,
    projectId: clouds.project_id,
    baseUrl: `${clouds.base_url}/api/atlas/${edition}`,
  });
  let job;
  await run(`community JavaScript client, ${edition}`, {
    async "project.getAll"(assert) {
      const { results } = await client.project.getAll(options);
      assert.deepEqual(results.map((project) => project.id), [clouds.project_id]);
    },
    async "cluster.getAll"(assert) {
      const page = { itemsPerPage: 2, pageNum: 1, ...options };
      const { results, totalCount } = await client.cluster.getAll(page);
      assert.deepEqual(results.map((found) => found.name), ["orders", "catalogue"]);
      assert.equal(totalCount, 5);
      assert.equal(results[0].providerSettings.instanceSizeName, "M2");
    },
    async "cloudBackup.getAllReplicaSetCloudBackups"(assert) {
      const { results } = await client.cloudBackup.getAllReplicaSetCloudBackups(cluster, options);
      assert.deepEqual(results.map((snapshot) => snapshot.id), ids);
    },
    async "cloudBackup.getReplicaSetCloudBackup"(assert) {
      const { cloudBackup } = client;
      const found = await cloudBackup.getReplicaSetCloudBackup(cluster, snapshotId, options);
      assert.equal(found.replicaSetName, cluster);
    },
    async "cloudBackup.createSnapshotRestoreJob"(assert) {
      const body = { deliveryType: "download", snapshotId };
      // What is given as httpOptions replaces the client's own headers.
      const headers = { "Content-Type": "application/json", ...options.httpOptions?.headers };
      job = await client.cloudBackup.createSnapshotRestoreJob(cluster, body, {
        httpOptions: { headers },
      });
      assert.equal(job.snapshotId, snapshotId);
    },
    async "cloudBackup.getSnapshotRestoreJob"(assert) {
      const found = await client.cloudBackup.getSnapshotRestoreJob(cluster, job.id, options);
      assert.deepEqual(found.deliveryUrl, job.deliveryUrl);
      assert.equal(found.deliveryUrl.length, 1);
    },
  });
}

async function main() {
  await journey("v1.0", ids[1], {});
  const headers = { Accept: "application/vnd.atlas.2023-01-01+json" };
  await journey("v2", ids[2], { httpOptions: { headers } });
}

main();
