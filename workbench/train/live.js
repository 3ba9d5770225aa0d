// The live view of wb.fit. state: see _state in display.py. Stop writes the file STOP into the run through the server's
// contents, since the kernel reads no message while its cell trains.
const WORDS = { stopped: "finished early" };

async function writeStop(state) {
  const config = JSON.parse(document.getElementById("jupyter-config-data")?.textContent || "{}");
  const root = (config.serverRoot || "?").replace(/^~/, state.home).replace(/\/$/, "");
  if (!state.stop_file.startsWith(root + "/")) throw new Error("the run is outside the folder that the server shows");
  const path = state.stop_file.slice(root.length + 1).split("/").map(encodeURIComponent).join("/");
  const cookie = /(?:^|; )_xsrf=([^;]*)/.exec(document.cookie);
  const answer = await fetch(`${config.baseUrl || "/"}api/contents/${path}`, {
    method: "PUT",
    headers: {
      "Content-Type": "application/json",
      ...(cookie ? { "X-XSRFToken": decodeURIComponent(cookie[1]) } : {}),
      ...(config.token ? { Authorization: `token ${config.token}` } : {}),
    },
    body: JSON.stringify({ type: "file", format: "text", content: "" }),
  });
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
}

function render({ model, el }) {
  const badge = make("span.wb-badge"), facts = make("span.wb-head"), note = make("div.wb-note");
  const bar = make("div"), charts = make("div.wb-charts");
  let heard = Date.now(), asked = false;
  const stop = make("button.wb-stop", {
    title: "Ends training after this step; the model gets the weights of its best epoch and the notebook goes on",
    onclick: async () => {
      asked = true;
      note.textContent = "";
      draw();
      try {
        await writeStop(model.get("state"));
      } catch (error) {
        asked = false;
        draw();
        note.textContent = `Could not ask for the stop: ${error.message}. Interrupt the kernel (■) instead: the weights of the best epoch stay.`;
      }
    },
  }, "Stop training");
  el.replaceChildren(make("div.wb.wb-live", {}, make("div.wb-head", {}, badge, facts, stop), make("div.wb-bar", {}, bar), charts, note));

  function draw() {
    const s = model.get("state");
    const busy = s.status === "training" || s.status === "validating";
    const status = busy && asked ? "stopping" : s.status;
    badge.className = `wb-badge ${status}`;
    badge.textContent = WORDS[status] || status;
    stop.hidden = !busy;
    stop.disabled = asked;
    const step = s.steps ? `, step ${s.step}/${s.steps}` : "";
    facts.replaceChildren(...[
      ["epoch", `${s.epoch}/${s.epochs}${busy ? step : ""}`],
      ["time", duration(s.seconds)],
      ...(busy ? [["left", s.left === null ? "–" : `about ${duration(s.left)}`]] : []),
      ["learning rate", format(s.learning_rate)],
      ...(s.best ? [["best epoch", `${s.best.epoch} (${s.best.name} ${format(s.best.value)})`]] : []),
    ].map(([name, value]) => make("span", {}, `${name} `, make("b", {}, value))));
    bar.style.width = `${(100 * s.done).toFixed(1)}%`;
  }

  function drawCharts() {
    const { curves, running, at, epochs } = model.get("state");
    const names = Object.keys(curves).filter((n) => !n.startsWith("val_") && n !== "learning_rate");
    names.sort((a, b) => (b === "loss") - (a === "loss"));
    charts.replaceChildren(...names.map((name) => {
      const line = (key, color, dashed, label) => ({ name: label, color, dashed, points: (curves[key] || []).map((v, i) => [i + 1, v]) });
      const training = line(name, COLORS[0], false, "training"), validation = line(`val_${name}`, COLORS[1], true, "validation");
      if (name in running) training.points.push([at, running[name]]);
      const shown = [training, validation].filter((s) => s.points.length);
      const keys = shown.map((s) => make(`span.wb-key${s.dashed ? ".dashed" : ""}`, { style: `--wb-color:${s.color}` }, `${s.name} ${format(s.points.at(-1)[1])}`));
      return make("figure", {}, chart(shown, { title: name, whole: true, range: [Math.min(1, at), Math.max(at, Math.min(epochs, 10), 1.01)] }), make("figcaption", {}, ...keys));
    }));
  }

  const changed = () => { heard = Date.now(); draw(); drawCharts(); };
  model.on("change:state", changed);
  changed();
  const watch = setInterval(() => {
    const silent = Math.round((Date.now() - heard) / 1000);
    if (!["training", "validating"].includes(model.get("state").status)) return;
    if (silent >= 10) note.textContent = `No word from the kernel for ${silent} s: a long step, or it has ended; run.json of the run knows.`;
    else if (note.textContent.startsWith("No word")) note.textContent = "";
  }, 1000);
  return () => { clearInterval(watch); model.off("change:state", changed); };
}

export default { render };
