// Validates Kubernetes objects (a JSON array on stdin) against the published schemas of their kinds. MODELS is the folder of the schemas.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const packages = {
  "networking.istio.io": "@kubernetes-models/istio",
  "gateway.envoyproxy.io": "@kubernetes-models/envoy-gateway",
  "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
  "traefik.io": "@kubernetes-models/traefik",
};

async function model({ apiVersion, kind }) {
  const path = join(process.env.MODELS, "node_modules", packages[apiVersion.split("/")[0]], apiVersion, `${kind}.js`);
  return (await import(pathToFileURL(path)))[kind];
}

// Gives every leaf of one type another type: numbers and booleans become text, as in the output of a wrong template, and text becomes a list.
const spoiled = (type) => (value) =>
  typeof value === type ? (type === "string" ? [] : String(value))
  : Array.isArray(value) ? value.map(spoiled(type))
  : value && typeof value === "object" ? Object.fromEntries(Object.entries(value).map(([k, v]) => [k, spoiled(type)(v)]))
  : value;

function refused(Model, object) {
  try {
    new Model(object).validate();
    return false;
  } catch {
    return true;
  }
}

// The first type that occurs.
function wrong(object) {
  const specs = ["number", "boolean", "string"].map((type) => spoiled(type)(object.spec));
  return { ...object, spec: specs.find((spec) => JSON.stringify(spec) !== JSON.stringify(object.spec)) };
}

for (const object of JSON.parse(readFileSync(0))) {
  const Model = await model(object);
  new Model(object).validate();
  if (!refused(Model, wrong(object))) throw new Error(`the schema of ${object.kind} refuses nothing`);
  console.log(`${object.apiVersion} ${object.kind}: accepted`);
}
