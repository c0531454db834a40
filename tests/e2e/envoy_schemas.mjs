// Validates Kubernetes objects (a JSON array on stdin) against the published schemas of their kinds; MODELS is where those are installed.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const packages = {
  "networking.istio.io": "@kubernetes-models/istio",
  "gateway.envoyproxy.io": "@kubernetes-models/envoy-gateway",
};

async function model({ apiVersion, kind }) {
  const path = join(process.env.MODELS, "node_modules", packages[apiVersion.split("/")[0]], apiVersion, `${kind}.js`);
  return (await import(pathToFileURL(path)))[kind];
}

// Every number as text: what a careless template would print.
const spoiled = (value) =>
  typeof value === "number" ? String(value)
  : Array.isArray(value) ? value.map(spoiled)
  : value && typeof value === "object" ? Object.fromEntries(Object.entries(value).map(([k, v]) => [k, spoiled(v)]))
  : value;

function refused(Model, object) {
  try {
    new Model(object).validate();
    return false;
  } catch {
    return true;
  }
}

for (const object of JSON.parse(readFileSync(0))) {
  const Model = await model(object);
  new Model(object).validate();
  if (!refused(Model, spoiled(object))) throw new Error(`the schema of ${object.kind} refuses nothing`);
  console.log(`${object.apiVersion} ${object.kind}: accepted`);
}
