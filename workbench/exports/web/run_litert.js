// A .tflite file in LiteRT.js, for the checks, on the CPU.

import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";
import { answer, clock, decode, encode } from "./wire.js";

let model;

const questions = {
  async open({ source, version }) {
    await loadLiteRt("/node_modules/@litertjs/core/wasm/");
    model = await loadAndCompile(source, { accelerator: "wasm" });
    return {
      name: `LiteRT.js ${version} on wasm`,
      inputs: Object.fromEntries(model.getInputDetails().map(describe)),
      outputs: Object.fromEntries(model.getOutputDetails().map(describe)),
    };
  },
  call: async (tensors) => encode(await run(await decode(tensors))),
  seconds: async (tensors) => clock(run, await decode(tensors)),
};

globalThis.ask = (question, argument) => answer(questions, question, argument);

const describe = ({ name, shape, dtype }) => [name, [[...shape].map((size) => (size < 0 ? null : size)), dtype]];

async function run(tensors) {
  const inputs = {}, answers = {};
  let outputs = {};
  try {
    for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
      if (dtype === "bool") throw new Error(`${name}: LiteRT.js has no tensor of bool`);
      inputs[name] = new Tensor(data, shape);
    }
    outputs = await model.run(inputs);
    for (const [name, tensor] of Object.entries(outputs)) {
      const { dtype, layout } = tensor.type;
      // A copy: the tensor's own memory is freed below.
      answers[name] = { dtype, shape: [...layout.dimensions], data: (await tensor.data()).slice() };
    }
    return answers;
  } finally {
    for (const tensor of [...Object.values(inputs), ...Object.values(outputs)]) tensor.delete();
  }
}
