// How a runtime talks with Python: arrays as base64 of little-endian bytes, answers as {value} or {error}.

const TYPES = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array, bool: Uint8Array };
const MILLISECONDS = 300, CALLS = 200; // as in runtime.py

// Ask one of the questions, functions by name. What is thrown becomes its message: Python raises it again.
export async function answer(questions, question, argument) {
  try {
    return { value: await questions[question](argument) };
  } catch (error) {
    return { error: String(error?.message ?? error) };
  }
}

// {name: {dtype, shape, data}} with typed arrays for the base64.
export async function decode(tensors) {
  const decoded = {};
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
    const known = Object.keys(TYPES).join(", ");
    if (!TYPES[dtype]) throw new Error(`${name}: JavaScript has no tensor of ${dtype}; it has ${known}`);
    const bytes = await (await fetch(`data:application/octet-stream;base64,${data}`)).arrayBuffer();
    decoded[name] = { dtype, shape, data: new TYPES[dtype](bytes) };
  }
  return decoded;
}

export function encode(tensors) {
  const encoded = {};
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
    // A cast in plain JavaScript may leave the values in an array of the old type.
    const array = data instanceof TYPES[dtype] ? data : TYPES[dtype].from(data);
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    const pieces = [];
    for (let start = 0; start < bytes.length; start += 0x8000) {
      pieces.push(String.fromCharCode(...bytes.subarray(start, start + 0x8000)));
    }
    encoded[name] = { dtype, shape, data: btoa(pieces.join("")) };
  }
  return encoded;
}

// The median duration of run(tensors) in seconds, over as many calls as fit into 0.3 s, and after a first one.
export async function clock(run, tensors) {
  await run(tensors);
  const durations = [];
  for (let spent = 0; durations.length < CALLS && spent < MILLISECONDS; spent += durations.at(-1)) {
    const started = performance.now();
    await run(tensors);
    durations.push(performance.now() - started);
  }
  durations.sort((a, b) => a - b);
  return durations[durations.length >> 1] / 1000;
}
