// What the driver checks share: where the proxy is, and how a check is told.

const assert = require('node:assert');

exports.host = process.env.PROXY_HOST;
exports.port = Number(process.env.PROXY_PORT);
exports.traceparent = process.env.TRACEPARENT;
exports.traceId = exports.traceparent.split('-')[1];
exports.url = `postgres://app:sesame@${exports.host}:${exports.port}/app`;

exports.check = (what, actual, expected) => {
  assert.deepStrictEqual(actual, expected, what);
  console.log(`✓ ${what}`);
};

exports.main = (story) =>
  story().catch((error) => {
    console.log(`✗ ${error.stack}`);
    process.exit(1);
  });
