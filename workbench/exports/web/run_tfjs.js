// A graph model in TensorFlow.js, for the checks: in a page, whose scripts are loaded before, and in Node:
//
//     node run_tfjs.js FOLDER        then one JSON line a question, {"question": ..., "argument": ...}

import { answer, clock, decode, encode } from "./wire.js";

const inNode = typeof process === "object";
const tf = globalThis.tf ?? (await import("@tensorflow/tfjs")).default;
const MISSING = /not registered for backend|not (yet )?(supported|implemented)|only supports|Unknown op/i;
const DTYPES = { DT_FLOAT: "float32", DT_INT32: "int32", DT_BOOL: "bool" };

let model, isAsynchronous;

const questions = {
  // Open the model on the first of the backends that has all it needs.
  async open({ source, backends }) {
    let found;
    for (const backend of backends) {
      model?.dispose();
      if (!(await tf.setBackend(backend))) throw new Error(`TensorFlow.js cannot start its backend ${backend}`);
      await tf.ready();
      model = await tf.loadGraphModel(inNode ? await handler(source) : source);
      isAsynchronous = false;
      found = await probe();
      if (!found.missing) break;
      if (backend === backends.at(-1)) throw found.missing;
    }
    const { inputs, outputs } = model.modelSignature;
    const describe = (declared, key, dtype) => [key, [lengths(declared[key]), dtype ?? DTYPES[declared[key].dtype]]];
    return {
      name: `TensorFlow.js ${tf.version.tfjs} on ${tf.getBackend()}`,
      inputs: Object.fromEntries(Object.keys(inputs).map((key) => describe(inputs, key))),
      outputs: Object.fromEntries(
        Object.keys(outputs).map((key) => describe(outputs, key, found.answers?.[key].dtype)),
      ),
    };
  },
  call: async (tensors) => encode(await run(await decode(tensors))),
  seconds: async (tensors) => clock(run, await decode(tensors)),
  tensors: () => tf.memory().numTensors, // a number that must not grow from call to call
};

export const ask = (question, argument) => answer(questions, question, argument);

function lengths({ tensorShape }) {
  return (tensorShape.dim ?? []).map(({ size }) => (Number(size) < 0 ? null : Number(size)));
}

// What the model answers to zeros, or why this backend cannot run it: only running it tells. Other errors may be due to
// the made-up lengths.
async function probe() {
  const tensors = {};
  for (const [name, declared] of Object.entries(model.modelSignature.inputs)) {
    const shape = lengths(declared).map((size) => size ?? 1), dtype = DTYPES[declared.dtype];
    const size = shape.reduce((a, b) => a * b, 1);
    tensors[name] = { dtype, shape, data: dtype === "float32" ? new Float32Array(size) : new Int32Array(size) };
  }
  try {
    return { answers: await run(tensors) };
  } catch (error) {
    return MISSING.test(error.message) ? { missing: error } : {};
  }
}

async function run(tensors) {
  const inputs = {}, names = Object.keys(model.modelSignature.outputs);
  let outputs = [];
  try {
    for (const [name, { dtype, shape, data }] of Object.entries(tensors)) inputs[name] = tf.tensor(data, shape, dtype);
    outputs = [await execute(inputs, names)].flat();
    const answers = {};
    for (const [i, name] of names.entries()) {
      const { dtype, shape } = outputs[i];
      answers[name] = { dtype, shape, data: await outputs[i].data() };
    }
    return answers;
  } finally {
    tf.dispose([inputs, outputs]);
  }
}

// Loops and branches need the slower way; the model tells so at the first call, before it computes anything.
async function execute(inputs, names) {
  if (isAsynchronous) return model.executeAsync({ ...inputs }, names);
  try {
    return model.execute({ ...inputs }, names);
  } catch (error) {
    if (!/executeAsync/.test(error.message)) throw error;
    isAsynchronous = true;
    return execute(inputs, names);
  }
}

// What loads a model from files, as Node has no server to ask.
async function handler(folder) {
  const { readFile } = await import("node:fs/promises");
  return {
    load: async () =>
      tf.io.getModelArtifactsForJSON(JSON.parse(await readFile(`${folder}/model.json`, "utf8")), async (manifest) => {
        const paths = manifest.flatMap((group) => group.paths);
        const shards = await Promise.all(paths.map((path) => readFile(`${folder}/${path}`)));
        const whole = Buffer.concat(shards);
        return [
          manifest.flatMap((group) => group.weights),
          whole.buffer.slice(whole.byteOffset, whole.byteOffset + whole.byteLength),
        ];
      }),
  };
}

if (inNode) {
  const { createInterface } = await import("node:readline");
  console.log = console.error; // standard output is for the answers
  for await (const line of createInterface({ input: process.stdin })) {
    const { question, argument } = JSON.parse(line);
    process.stdout.write(`${JSON.stringify(await ask(question, argument))}\n`);
  }
} else {
  tf.wasm.setWasmPaths("/node_modules/@tensorflow/tfjs-backend-wasm/dist/");
  globalThis.ask = ask;
}
