// One line for each call of a client: what `scripts/conformance` counts.

const assert = require("node:assert/strict");

/** Runs the checks one after another; each is a name and a function that throws when it fails. */
module.exports = async function run(client, checks) {
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check(assert);
      console.log(`ok      ${client}: ${name}`);
    } catch (error) {
      console.log(`FAILED  ${client}: ${name}: ${String(error.message).replaceAll("\n", " ")}`);
    }
  }
};
