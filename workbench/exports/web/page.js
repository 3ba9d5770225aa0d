// The page beside a graph model: a canvas for a classifier of images, else an input to type.

const $ = (id) => document.getElementById(id);
const INK = 256; // pixels of the drawing, along the longer side
let model, sample, shown = -1;

// The first way to compute that has all of the model's operations, and its answer.
async function open() {
  tf.wasm.setWasmPaths("lib/");
  for (const backend of ["wasm", "webgl", "cpu"]) {
    try {
      if (!(await tf.setBackend(backend))) continue;
      model = await tf.loadGraphModel("model.json");
      await predict(row(0));
      return;
    } catch (error) {
      if (backend === "cpu") throw error;
    }
  }
}

// The recorded example with this number, by input.
function row(number) {
  return Object.fromEntries(Object.entries(sample.inputs).map(([name, input]) => [name, input.rows[number]]));
}

// The answers to one example, as nested lists by output, and how long they took.
async function predict(example) {
  const inputs = {}, names = Object.keys(sample.outputs);
  for (const [name, { dtype, shape }] of Object.entries(sample.inputs)) {
    inputs[name] = tf.tensor([example[name]], [1, ...shape], dtype);
  }
  const started = performance.now();
  const outputs = [await execute(inputs, names)].flat();
  const answers = await Promise.all(outputs.map((output) => output.array()));
  const milliseconds = performance.now() - started;
  tf.dispose([inputs, outputs]);
  return { answers: Object.fromEntries(names.map((name, i) => [name, answers[i][0]])), milliseconds };
}

// Models with loops want to be asked in another way, and say so.
async function execute(inputs, names) {
  try {
    return model.execute({ ...inputs }, names);
  } catch (error) {
    if (!/executeAsync/.test(error.message)) throw error;
    return model.executeAsync({ ...inputs }, names);
  }
}

function tell(milliseconds) {
  $("status").textContent = `${milliseconds.toFixed(1)} ms a prediction, on this device (${tf.getBackend()})`;
}

// --- drawing ---------------------------------------------------------------------------------------------------------

function startDrawing({ input, output, width, height, channels, ground, stroke }) {
  const draw = $("draw"), ink = draw.getContext("2d", { willReadFrequently: true });
  const longer = Math.max(width, height), seen = $("seen");
  [draw.width, draw.height] = [width, height].map((side) => Math.round((INK * side) / longer));
  draw.style.aspectRatio = `${width} / ${height}`;
  [seen.width, seen.height] = [width, height];
  const names = sample.labels ?? sample.outputs[output].rows[0].map((_, i) => String(i));
  $("scores").innerHTML = names.map(() => `<li><span></span><div class="bar"><div></div></div><output></output></li>`).join("");
  names.forEach((name, i) => ($("scores").children[i].firstChild.textContent = name));

  const clear = () => {
    ink.fillStyle = "#000";
    ink.fillRect(0, 0, draw.width, draw.height);
    seen.getContext("2d").clearRect(0, 0, width, height);
    $("answer").textContent = "Draw something.";
    for (const line of $("scores").children) {
      line.className = line.lastChild.textContent = "";
      line.querySelector(".bar div").style.width = 0;
    }
  };

  // The ink, cut out with a margin, put in the middle and averaged down to the model's pixels; each from 0 to 1.
  function pixels() {
    const { data } = ink.getImageData(0, 0, draw.width, draw.height);
    let left = draw.width, top = draw.height, right = -1, bottom = -1;
    for (let y = 0; y < draw.height; y++) {
      for (let x = 0; x < draw.width; x++) {
        if (data[4 * (y * draw.width + x)] < 32) continue;
        [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
      }
    }
    if (right < 0) return null;
    const scale = 1.04 * Math.max((right - left + 1) / width, (bottom - top + 1) / height);
    const [x0, y0] = [(left + right + 1 - scale * width) / 2, (top + bottom + 1 - scale * height) / 2];
    return Array.from({ length: height }, (_, row) =>
      Array.from({ length: width }, (_, column) => {
        const [from, to] = [x0 + column * scale, x0 + (column + 1) * scale];
        let sum = 0, count = 0;
        for (let y = Math.floor(y0 + row * scale); y < y0 + (row + 1) * scale; y++) {
          for (let x = Math.floor(from); x < to; x++, count++) {
            if (x >= 0 && y >= 0 && x < draw.width && y < draw.height) sum += data[4 * (y * draw.width + x)] / 255;
          }
        }
        return sum / count;
      }),
    );
  }

  async function answer(image, expected) {
    const { answers, milliseconds } = await predict({ [input]: image });
    const scores = answers[output], best = scores.indexOf(Math.max(...scores));
    [...$("scores").children].forEach((line, i) => {
      line.className = i === best ? "best" : "";
      line.querySelector(".bar div").style.width = `${100 * Math.min(1, Math.max(0, scores[i]))}%`;
      line.lastChild.textContent = scores[i].toFixed(3);
    });
    $("answer").textContent = expected === undefined ? `I see: ${names[best]}` : `I see: ${names[best]}; predict: ${names[expected]}`;
    const view = seen.getContext("2d"), colours = view.createImageData(width, height);
    image.flat().forEach((value, i) => {
      const rgb = [0, 1, 2].map((c) => (255 * (value[c % channels] - ground)) / (stroke - ground));
      colours.data.set([...rgb, 255], 4 * i);
    });
    view.putImageData(colours, 0, 0);
    tell(milliseconds);
  }

  let busy = false, waiting = false;
  async function update() {
    waiting = busy;
    if (busy) return;
    busy = true;
    const drawn = pixels();
    if (drawn) {
      await answer(drawn.map((line) => line.map((value) => Array(channels).fill(ground + value * (stroke - ground)))));
    }
    busy = false;
    if (waiting) update();
  }

  let last = null;
  const place = (event) => [(event.offsetX * draw.width) / draw.clientWidth, (event.offsetY * draw.height) / draw.clientHeight];
  function line(event) {
    if (!last) return;
    const here = place(event);
    ink.strokeStyle = "#fff";
    ink.lineWidth = INK / 11;
    ink.lineCap = ink.lineJoin = "round";
    ink.beginPath();
    ink.moveTo(...last);
    ink.lineTo(...here);
    ink.stroke();
    last = here;
    update();
  }
  draw.addEventListener("pointerdown", (event) => {
    draw.setPointerCapture(event.pointerId);
    if (shown >= 0) clear();
    shown = -1;
    last = place(event);
    line(event);
  });
  draw.addEventListener("pointermove", line);
  for (const end of ["pointerup", "pointercancel"]) draw.addEventListener(end, () => (last = null));
  $("clear").addEventListener("click", clear);
  $("next").addEventListener("click", () => {
    shown = (shown + 1) % sample.inputs[input].rows.length;
    const image = sample.inputs[input].rows[shown], scores = sample.outputs[output].rows[shown];
    answer(image, scores.indexOf(Math.max(...scores))).then(() => ink.drawImage(seen, 0, 0, draw.width, draw.height));
  });
  clear();
}

// --- typing ----------------------------------------------------------------------------------------------------------

function startTyping() {
  const rows = Object.values(sample.inputs)[0].rows.length;
  async function run() {
    try {
      const { answers, milliseconds } = await predict(JSON.parse($("input").value));
      tell(milliseconds);
      $("result").textContent = JSON.stringify(answers, null, 1);
    } catch (error) {
      $("result").textContent = `Not an example of the inputs ${Object.keys(sample.inputs).join(", ")}: ${error.message}`;
    }
  }
  function another() {
    shown = (shown + 1) % rows;
    $("input").value = JSON.stringify(row(shown), null, 1);
    run();
  }
  $("run").addEventListener("click", run);
  $("another").addEventListener("click", another);
  another();
}

try {
  sample = await (await fetch("sample.json")).json();
  document.title = $("title").textContent = sample.title;
  await open();
  tell((await predict(row(0))).milliseconds);
  $(sample.image ? "drawing" : "typing").hidden = false;
  if (sample.image) startDrawing(sample.image);
  else startTyping();
} catch (error) {
  $("status").textContent = `The model could not be opened: ${error.message}`;
  throw error;
}
